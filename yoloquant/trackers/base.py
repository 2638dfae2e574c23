"""What a tracker is told of, and what a tracker is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class TrackedRun:
    """One run of a verb.

    Attributes:
        verb: The verb.
        name: What people call the run.
        folder: Where its files lie.
        parameters: What it was told.
        metrics: Figures by name; every one is a finite number.
        series: Figures that have several values, as step and value.
        files: Files to keep, pictures among them.
        text: A summary in Markdown.
    """

    verb: str
    name: str
    folder: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    text: str = ""

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The files that are pictures."""
        # by suffix: what draws them writes no other kinds
        return tuple(path for path in self.files if path.suffix.lower() in {".png", ".jpg"})


class Tracker(ABC):
    """One tracker.

    Attributes:
        title: What people call it.
        setting: Its key in Ultralytics' settings.
        module: What must be installed.
    """

    title: ClassVar[str]
    setting: ClassVar[str]
    module: ClassVar[str]

    @abstractmethod
    def log(self, run: TrackedRun) -> None:
        """Tell it of a run; may raise anything."""
