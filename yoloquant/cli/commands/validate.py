"""``yoloquant validate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...evaluation.validate_options import ValidateOptions
from ...options import PathOrNone, Text, TextOrNone, option, option_model
from ..parser import Call
from ..progress import bar
from ..show import print_validation

INCONCLUSIVE = "exit code of an inconclusive verdict"


@option_model
class ValidateCall:
    """What is judged, and on what."""

    model: Text = option(help="checkpoint (.pt) of the FP32 model that is the baseline; a quantized one holds it")
    exports: Text = option(help="export folder, or one artifact in it", aliases=("artifact", "folder"))
    data: TextOrNone = option(default=None, help="data yaml with labels (a path, or a name such as coco128.yaml)")
    source: TextOrNone = option(default=None, help="folder of images without labels to judge on, instead of data")
    output: PathOrNone = option(default=None, help="folder for the report; <exports>/report if not given")
    inconclusive: int = option(default=3, ge=0, le=255, help=INCONCLUSIVE)


PARTS = (ValidateCall, ValidateOptions)


def run(call: Call) -> int:
    """Score, judge, and print the table."""
    from ... import api
    from ...evaluation.gate import exit_code

    own = call[ValidateCall]
    folder = Path(own.exports)
    report = Path(own.output or (folder if folder.is_dir() else folder.parent) / "report")
    with bar("validating") as progress:
        result = api.validate(
            own.model,
            own.exports,
            data=own.data,
            source=own.source,
            options=replace(call[ValidateOptions], report=report),
            progress=progress,
        )
    print_validation(result, report)
    return exit_code(result, own.inconclusive)
