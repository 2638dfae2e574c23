"""Scores of models on the held-back images; the float model's detections are computed once for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.core.detections import Detections
from ..runtime.core.runner import Runner
from ..sensitivity.images import Images
from ..sensitivity.score import ImageScores


@dataclass(frozen=True)
class HeldBackScores:
    """How good a model is.

    Attributes:
        fidelity: The task's main fidelity to the float model, 0 to 1.
        accuracy: The task's main metric on labels, 0 to 1; None without labels.
    """

    fidelity: float
    accuracy: float | None


class HeldBackScorer(ImageScores):
    """Scores one model after another.

    Args:
        images: The images.
        reference: The float model that everything is held against.
    """

    def __init__(self, images: Images, reference: Runner) -> None:
        super().__init__(images)
        self.reference = reference
        self._reference: list[Detections] = []
        self._accuracy: dict[int, float | None] = {}

    def __call__(self, runner: Runner, share: float = 1.0) -> HeldBackScores:
        """Score a model on the first images.

        Args:
            runner: The model.
            share: Of the images, up to 1; at least one is taken.
        """
        count = self.count(share)
        found = self.detections(runner, 0, count)
        fidelity = self.score(found, self.references(self._known(count)), fidelity=True)
        return HeldBackScores(fidelity, self._labelled(found))

    def count(self, share: float) -> int:
        """How many images a share of them is."""
        return max(1, round(share * len(self.images.data)))

    def reference_accuracy(self, share: float = 1.0) -> float | None:
        """The float model's main metric on the first images; None without labels."""
        count = self.count(share)
        if count not in self._accuracy:
            self._accuracy[count] = self._labelled(self._known(count))
        return self._accuracy[count]

    def _known(self, count: int) -> list[Detections]:
        """The float model's detections, extended as far as anybody asked and never computed twice."""
        self._reference += self.detections(self.reference, len(self._reference), count)
        return self._reference[:count]

    def _labelled(self, found: list[Detections]) -> float | None:
        if not any(len(item.classes) for item in self.images.data.images[: len(found)]):
            return None
        return self.score(found, self.labels(len(found)), fidelity=False)
