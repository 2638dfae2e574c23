"""One pass over the images as a piece of work: everything that a process needs to make it, or a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..data.dataset import ValidationSet
from ..predictions.prediction_set import RecordedModel
from ..types import Progress
from .evaluate import EvaluateOptions, Evaluation, evaluate
from .openings import Opening, open_all


@dataclass(frozen=True)
class PassResult:
    """What came of a pass.

    Attributes:
        evaluation: What was measured.
        unopened: Why models could not be opened, by name.
    """

    evaluation: Evaluation
    unopened: Mapping[str, str]


@dataclass(frozen=True)
class PassJob:
    """A pass that is to be made.

    Attributes:
        openings: How models are opened, by name.
        recorded: Results that models gave elsewhere, by name.
        images: The images.
        options: How models are run.
    """

    openings: Mapping[str, Opening]
    recorded: Mapping[str, RecordedModel]
    images: ValidationSet
    options: EvaluateOptions

    def run(self, progress: Progress | None = None, *, only: range | None = None) -> PassResult:
        """Make it in this process.

        Args:
            progress: Called after every image.
            only: Places of the images that are run; all of them if None.

        Raises:
            YoloquantError: See ``evaluate``.
        """
        runners, unopened = open_all(self.openings)
        try:
            found = evaluate(runners, self.images, self.options, recorded=self.recorded, progress=progress, only=only)
        finally:
            for runner in runners.values():
                runner.close()
        return PassResult(found, unopened)
