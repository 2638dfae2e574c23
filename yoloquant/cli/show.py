"""What the command prints about results."""

from __future__ import annotations

import sys
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from .progress import bar

if TYPE_CHECKING:
    from ..evaluation.results import ValidationResult
    from ..targets.exports import ExportResult
    from ..types import Progress


def say(text: str) -> None:
    """Print a line so that it is read as soon as it is written, also through a pipe."""
    print(text, flush=True)


def print_next_export(checkpoint: Path, plans: Collection[str]) -> None:
    """Print how a quantized checkpoint is exported: to all runtimes, or to those whose own plan it has.

    Args:
        checkpoint: The checkpoint.
        plans: Schemes that it has plans of.
    """
    from .. import targets
    from ..quantization.scheme import PORTABLE

    # by their own names: a scheme that several share is called after the one that it was made for
    own = [name for name in targets.names() if name in plans]
    everywhere = PORTABLE.name in plans or not own
    print(f"next: yoloquant export {checkpoint} targets={'all' if everywhere else ','.join(own)}")


def print_exports(outcome: ExportResult) -> None:
    """Print what was exported, with its notes, and what failed."""
    from ..targets.check_scales import KEY

    for export in outcome.exports:
        held = export.metadata.get(KEY)
        scales = f", {held['values']} scales as in the plan" if held else ""
        print(f"exported {export.target}: {export.path} ({export.size_bytes / 1e6:.2f} MB{scales})")
        for note in export.notes:
            print(f"  note: {note}")
    for name, error in outcome.errors.items():
        # errors also reach people who keep only the listing
        print(f"failed {name}: {error}", file=sys.stderr)


def print_validation(result: ValidationResult, report: Path, conclusion: str = "") -> None:
    """Print the table, what follows from it if that is said, where the report lies, and the verdict."""
    # the verdict last: it is what stands above the prompt
    *table, verdict = result.summary().splitlines()
    print("\n" + "\n".join(table))
    if conclusion:
        print(f"\n{conclusion}")
    print(f"\nreport:  {report / 'report.html'}")
    print(verdict)


class Console:
    """Shows a run in the terminal."""

    def stage(self, name: str) -> AbstractContextManager[Progress | None]:
        """A progress bar for a stage."""
        return bar(name)

    def note(self, text: str) -> None:
        """A line about what a stage made."""
        print(text)

    def exported(self, exports: ExportResult) -> None:
        """The list of artifacts."""
        print_exports(exports)
