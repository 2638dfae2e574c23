"""``yoloquant validate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...bridge.data_file import check_data_file
from ...errors import UsageError
from ...evaluation.validate_options import ValidateOptions
from ...options import PathOrNone, Text, TextOrNone, option, option_model
from ...options.shared import UnlabelledImages
from ..parser import Call
from ..progress import bar
from ..show import print_validation
from ..verdict_code import VerdictCode


@option_model
class ValidateCall:
    """What is judged, and on what."""

    model: Text = option(help="checkpoint (.pt) of the FP32 model that is the baseline; a quantized one holds it")
    exports: TextOrNone = option(
        default=None,
        help="export folders and artifacts, separated by commas, also exports that Ultralytics made and other "
        "checkpoints; may be left out where predictions are judged",
        aliases=("artifact", "folder"),
    )
    data: TextOrNone = option(default=None, help="data yaml with labels (a path, or a name such as coco128.yaml)")
    source: UnlabelledImages = None
    output: PathOrNone = option(default=None, help="folder for the report; report beside what is judged if not given")


PARTS = (ValidateCall, VerdictCode, ValidateOptions)


def run(call: Call) -> int:
    """Score, judge, and print the table."""
    from ... import api
    from ...evaluation.gate import exit_code

    own = call[ValidateCall]
    options = call[ValidateOptions]
    judged = own.exports or next(iter(options.recorded.predictions), None)
    if judged is None:
        raise UsageError("there is nothing to judge; give exports=<folder or artifact>, or predictions=<file>")
    if own.data:
        check_data_file(own.data)
    # a path may hold a comma itself; of several artifacts the first one's place counts
    folder = Path(judged if Path(judged).exists() else judged.partition(",")[0])
    report = Path(own.output or (folder if folder.is_dir() else folder.parent) / "report")
    with bar("validating") as progress:
        result = api.validate(
            own.model,
            own.exports,
            data=own.data,
            source=own.source,
            options=replace(options, report=report),
            progress=progress,
        )
    print_validation(result, report)
    return exit_code(result, call[VerdictCode].inconclusive)
