"""Labels as a model was trained on them: all objects as one class (``single_cls``), or some ``classes`` only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.tasks.base import Labels


@dataclass(frozen=True)
class TrainedClasses:
    """Which classes Ultralytics showed a model during training, by its arguments of the same names.

    Attributes:
        single: Whether every object was of class 0, whatever its label says.
        only: Classes that it saw; all if empty.
    """

    single: bool = False
    only: tuple[int, ...] = ()

    @classmethod
    def of(cls, arguments: Any) -> TrainedClasses:
        """Read them from a checkpoint's training arguments; what makes no sense there counts as not given."""
        given = dict(arguments) if isinstance(arguments, Mapping) else {}
        only = given.get("classes")
        # Ultralytics takes one class or a list
        only = [only] if isinstance(only, int) else only
        known = isinstance(only, (list, tuple)) and all(isinstance(c, int) and c >= 0 for c in only)
        return cls(bool(given.get("single_cls")), tuple(only) if known and only is not None else ())

    @property
    def arguments(self) -> dict[str, Any]:
        """The same as training arguments; those that are given."""
        return {
            **({"single_cls": True} if self.single else {}),
            **({"classes": list(self.only)} if self.only else {}),
        }

    def labels(self, labels: Labels) -> Labels:
        """Labels of one image as training saw them: others are dropped first, then all become class 0."""
        if self.only:
            keep = np.isin(labels.classes, self.only)
            parts = {name: part[keep] if len(part) == len(keep) else part for name, part in labels.parts.items()}
            labels = Labels(labels.classes[keep], labels.boxes[keep], parts)
        return Labels(np.zeros_like(labels.classes), labels.boxes, labels.parts) if self.single else labels
