"""What a format has to say: where a data set's files are, and what they say about each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ...runtime.tasks.base import Drawn

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
"""What splits are called, in Ultralytics' word and in others'."""


@dataclass(frozen=True)
class Found:
    """The files of a data set.

    Attributes:
        source: What the user named.
        root: The folder that it lies in.
        splits: Files that describe each split, by Ultralytics' word for it.
        images: Folder of each split's images, where the user named one.
        names: Class names, where the user gave them.
    """

    source: str
    root: Path
    splits: Mapping[str, tuple[Path, ...]]
    images: Mapping[str, Path] = field(default_factory=dict)
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thing:
    """One labelled object.

    Attributes:
        label: Index of its class.
        drawn: Where it is.
        where: File and entry, for messages.
    """

    label: int
    drawn: Drawn
    where: str


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes:
        name: Its name: what results are matched by.
        file: Where it lies; None where ``content`` holds it.
        content: Bytes of an image file.
        size: Height and width that the data set states in pixels; None if it does not.
        things: What is labelled in it.
        label: Index of its class, where images as a whole have one.
        crowds: Regions with many objects that are not labelled one by one.
    """

    name: str
    file: Path | None = None
    content: bytes = b""
    size: tuple[int, int] | None = None
    things: tuple[Thing, ...] = ()
    label: int | None = None
    crowds: tuple[Thing, ...] = ()


@dataclass
class Contents:
    """What a data set says.

    Attributes:
        names: Class names, index by index.
        used: Indices of classes that are labelled somewhere.
        splits: Images of each split, read while they are asked for.
        keypoints: Names of an object's keypoints.
        notes: What a reader must know, a count each; grows while images are read.
        classifies: Whether images as a whole are labelled.
    """

    names: tuple[str, ...]
    used: frozenset[int]
    splits: Mapping[str, Iterator[Picture]]
    keypoints: tuple[str, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)
    classifies: bool = False

    def note(self, text: str) -> None:
        """Count what happened once more."""
        self.notes[text] = self.notes.get(text, 0) + 1


class DataFormat(ABC):
    """One format. Its methods keep no state.

    Attributes:
        title: What people call it.
    """

    title: ClassVar[str]

    @abstractmethod
    def find(self, data: str) -> Found | None:
        """The files of a data set; None if it is of another format. Cheap: nothing large is read.

        Raises:
            DataError: It is of this format, and something is missing.
        """

    @abstractmethod
    def read(self, found: Found, *, keypoints: bool) -> Contents:
        """Read a data set.

        Args:
            found: Its files.
            keypoints: Whether the task is about keypoints: some data sets label them in files of their own.

        Raises:
            DataError: A file is missing or malformed.
        """


def split_of(name: str) -> str | None:
    """Which split a file or folder is called after; None if it is called otherwise."""
    # whole words: "training_notes" is of train, "constraints" is not
    words = "".join(c if c.isalpha() else " " for c in name.casefold()).split()
    return next((split for split, known in SPLITS.items() if any(word in known for word in words)), None)


def stated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Height and width as a file states them; None where it does not."""
    sides = [str(side).strip() for side in (height, width)]
    # 0 as well is "not stated": some tools write it
    return (int(sides[0]), int(sides[1])) if all(s.isdigit() and int(s) for s in sides) else None


def undivided(files: tuple[Path, ...]) -> dict[str, tuple[Path, ...]]:
    """Splits of a data set that is not split: it trains and is scored, which calibration then refuses by itself."""
    return {"train": files, "val": files}
