"""A study that is set up: what every process that works on it must know. Loads neither torch nor Ultralytics."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.core.folder_check import file_sha256
from ..summarized import plain
from .space import SearchSpace
from .study import open_study
from .tune_options import Stopper, TuneOptions

if TYPE_CHECKING:
    import optuna

    from ..data.dataset import ValidationSet
    from ..types import ModelInfo

AGAIN = "-again"
"""Ends the name of the study that measures the best once more, with all images and epochs."""


@dataclass(frozen=True)
class HeldBack:
    """A data set without the scored split.

    Attributes:
        data: Data yaml or folder that trials are given: its train split lacks what is held back, its val split.
        folder: Folder of held-back images without labels; None where they are the val split of ``data``.
        images: How many are held back.
        sha256: Hash of them and of the others' number.
    """

    data: str
    folder: Path | None
    images: int
    sha256: str

    def open(self, info: ModelInfo) -> ValidationSet:
        """The held-back images with their labels."""
        from ..data.dataset import ValidationSet

        if self.folder is not None:
            return ValidationSet.from_folder(self.folder, info.names)
        return ValidationSet.open(self.data, info, split="val")


@dataclass(frozen=True)
class Studied:
    """A study that is set up.

    Attributes:
        space: What is searched.
        options: Objectives and budget.
        held: The held-back images.
        folder: Where everything lies.
        url: Of the storage.
    """

    space: SearchSpace
    options: TuneOptions
    held: HeldBack
    folder: Path
    url: str

    def identity(self, stage: str) -> dict[str, Any]:
        """What makes results comparable."""
        options = self.options
        # places of files may change between two calls: the model and the data count by their content
        fixed = {k: v for k, v in self.space.base.items() if k not in ("model", "data", "output", "validation")}
        return {
            "space": self.space.text,
            # also how many images: scores of another share do not compare
            "objective": {"objectives": [o.value for o in options.measured], "stage": stage, "few": options.few},
            "model": {"sha256": file_sha256(Path(str(self.space.base["model"])))},
            "data": {"held back": self.held.sha256},
            # through JSON, as the storage gives it back: a tuple would differ from its own list
            "recipe": json.loads(json.dumps(plain(fixed), default=str)),
        }

    def open(self, again: bool = False) -> optuna.Study:
        """The study of the search, or of the second look."""
        name = self.options.name + (AGAIN if again else "")
        # the second look is for a fair comparison, which needs every epoch
        options = replace(self.options, pruner=Stopper.NONE) if again else self.options
        return open_study(self.url, name, options, self.space, self.identity("again" if again else "search"))
