"""``yoloquant compare``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...evaluation.release_options import ReleaseOptions
from ...options import PathOrNone, option, option_model
from ..parser import Call
from ..progress import bar
from ..show import print_validation
from ..verdict_code import VerdictCode


@option_model
class CompareCall:
    """Where the report goes, and what a script is told."""

    output: PathOrNone = option(default=None, help="folder for the report; compare if not given")


PARTS = (CompareCall, VerdictCode, ReleaseOptions)


def run(call: Call) -> int:
    """Compare, judge, and print a table for every pair; the exit code is the worst one's."""
    from ... import api
    from ...evaluation.gate import exit_code_of, overall_verdict

    own = call[CompareCall]
    # in the working folder: old and new lie in two places, and the report belongs to neither
    folder = Path(own.output or "compare")
    with bar("comparing") as progress:
        comparisons = api.compare(options=replace(call[ReleaseOptions], report=folder), progress=progress)
    for each in comparisons:
        if len(comparisons) > 1:
            print(f"\n== {each.name} ==")  # rows are called old and new in every table
        print_validation(each.result, each.folder or folder, each.conclusion)
    return exit_code_of(overall_verdict(each.result.verdict for each in comparisons), call[VerdictCode].inconclusive)
