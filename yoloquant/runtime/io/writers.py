"""Where results go: JSON lines, a video, a folder of images, or a window."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from ..apps.pipeline import FrameResult
from ..errors import OutputError
from ..tasks import TaskSpec

VIDEO_SUFFIXES = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
RESERVE = 32 << 20
"""Bytes that a video leaves free on its disk: OpenCV does not report a failed write, so it must not come to one."""

LONGEST_GAP_S = 10.0
"""Silence of a camera that a video shows as it was; a longer one is cut."""

_CHECK_EVERY = 8
_NO_FPS = 30.0


class Writer(ABC):
    """Takes results, in order.

    Attributes:
        pictures: Whether it needs the frame drawn.
    """

    pictures: bool = False

    @abstractmethod
    def write(self, result: FrameResult) -> None:
        """Take one result.

        Raises:
            OutputError: It cannot be written.
        """

    def close(self) -> None:  # noqa: B027 - lines that were said need no end
        """Finish properly.

        Raises:
            OutputError: What was written is not whole.
        """


def record(result: FrameResult, names: Sequence[str], task: TaskSpec) -> dict[str, Any]:
    """A result as plain data.

    Returns:
        ``index``, ``time`` in seconds, ``xyxy`` in pixels of the frame, ``confidence``, ``class_id``, ``names``,
        ``latency_ms`` since the frame was captured, ``file`` for images, and what the task finds besides: ``masks``,
        ``keypoints``, ``rotated``.
    """
    detections = result.detections
    classes = [int(c) for c in detections.class_id]
    data: dict[str, Any] = {
        "index": result.frame.index,
        "time": round(result.frame.time, 6),
        "xyxy": [[round(float(v), 3) for v in box] for box in detections.xyxy],
        "confidence": [round(float(s), 6) for s in detections.confidence],
        "class_id": classes,
        "names": [names[c] if c < len(names) else str(c) for c in classes],
        "latency_ms": round(result.age * 1e3, 3),
        **task.record(detections, result.frame.image.shape[:2]),
    }
    if result.frame.name:
        data["file"] = result.frame.name
    return data


class SaidLines(Writer):
    """JSON lines handed to a function, for instance one that prints them."""

    def __init__(self, say: Callable[[str], None], names: Sequence[str], task: TaskSpec) -> None:
        self._say, self._names, self._task = say, names, task

    def write(self, result: FrameResult) -> None:
        """Say one object."""
        self._say(json.dumps(record(result, self._names, self._task), ensure_ascii=False))


class JsonLines(Writer):
    """A file with one JSON object per line. It can be followed while it grows, and only ever holds whole lines.

    Args:
        path: The file; replaced if it exists.
        names: Class names.
        task: The rules of the model's task.

    Raises:
        OutputError: It cannot be created.
    """

    def __init__(self, path: Path, names: Sequence[str], task: TaskSpec) -> None:
        self._path, self._names, self._task, self._size = path, names, task, 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # unbuffered: whoever follows the file sees a line as soon as it is said, and a kill loses none
            self._stream: IO[bytes] = path.open("wb", buffering=0)
        except OSError as exc:
            raise OutputError(f"'{path}' cannot be written ({exc.strerror or exc}); choose another output=") from exc

    def write(self, result: FrameResult) -> None:
        """Append one line.

        Raises:
            OutputError: The disk is full, or the file is gone.
        """
        line = json.dumps(record(result, self._names, self._task), ensure_ascii=False).encode("utf-8") + b"\n"
        try:
            rest = memoryview(line)
            while rest:  # an unbuffered write may stop half-way
                rest = rest[self._stream.write(rest) :]
        except OSError as exc:
            self._cut()
            raise OutputError(
                f"'{self._path}' cannot be written ({exc.strerror or exc}); it ends before this frame"
            ) from exc
        self._size += len(line)

    def _cut(self) -> None:
        """Take half a line away."""
        with contextlib.suppress(OSError):  # a device such as a pipe has no length
            self._stream.truncate(self._size)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class ImageFolder(Writer):
    """One picture per frame, named like the image that it came from.

    Args:
        folder: Where to.

    Raises:
        OutputError: It cannot be created.
    """

    pictures = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError(
                f"folder '{folder}' cannot be made ({exc.strerror or exc}); choose another output="
            ) from exc

    def write(self, result: FrameResult) -> None:
        """Write one picture, whole or not at all.

        Raises:
            OutputError: The disk is full, or OpenCV cannot encode it.
        """
        name = result.frame.name or f"{result.frame.index:06d}.jpg"
        path = self._folder / name
        temporary = path.with_name(f".{name}.part")
        try:
            # Encoded here and written by Python, which says so when a disk is full.
            good, data = cv2.imencode(path.suffix, result.frame.image)
            if not good:
                raise OutputError(f"OpenCV cannot write '{path}'; use .jpg or .png images")
            temporary.write_bytes(data.tobytes())
            os.replace(str(temporary), str(path))
        except OSError as exc:
            _remove(temporary)
            raise OutputError(f"'{path}' cannot be written ({exc.strerror or exc})") from exc


class VideoFile(Writer):
    """A video. It gets its name when it is finished and proven readable.

    Args:
        path: The file; its suffix decides the container.
        fps: Frames per second.
        steady: Whether frames come at uneven times, as from a camera; each is then shown until the next one came.
        reserve: Bytes to leave free on the disk.

    Raises:
        OutputError: The folder cannot be written.
    """

    pictures = True

    def __init__(self, path: Path, fps: float | None = None, *, steady: bool = False, reserve: int = RESERVE) -> None:
        self._path, self._fps, self._steady, self._reserve = path, fps or _NO_FPS, steady, reserve
        # The suffix stays at the end: OpenCV chooses the container by it.
        self._temporary = path.with_name(f".{path.stem}.part{path.suffix}")
        self._writer: Any = None
        self._size, self._start = (0, 0), 0.0
        self._last: np.ndarray | None = None
        self._frames = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Now, so that a place which cannot be written is told before the first frame.
            self._temporary.touch()
        except OSError as exc:
            raise OutputError(f"'{path}' cannot be written ({exc.strerror or exc}); choose another output=") from exc
        self._check_space()

    def write(self, result: FrameResult) -> None:
        """Append one frame; frames of another size than the first are fitted into it.

        Raises:
            OutputError: The disk is full, or OpenCV cannot encode.
        """
        image = result.frame.image
        if self._writer is None:
            self._open(image)
            self._start = result.frame.time
        if image.shape[1::-1] != self._size:
            image = _fitted(image, self._size)
        if self._steady:
            # Frames that the file should hold by now: it has one rate, a camera has not.
            due = round(min((result.frame.time - self._start) * self._fps, self._frames + LONGEST_GAP_S * self._fps))
            while self._last is not None and self._frames < due:
                self._append(self._last)
            self._last = image
            if self._frames > due:
                return  # faster than the video's rate
        self._append(image)

    def _append(self, image: np.ndarray) -> None:
        # Not at every frame, since asking the disk is a system call.
        if self._frames % _CHECK_EVERY == 0:
            self._check_space()
        self._writer.write(image)
        self._frames += 1

    def _open(self, image: np.ndarray) -> None:
        self._size = (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)  # encoders want even sides
        code = cv2.VideoWriter.fourcc(*VIDEO_SUFFIXES[self._path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._temporary), code, self._fps, self._size)
        if not self._writer.isOpened():
            raise OutputError(f"OpenCV cannot write a video '{self._path}' here; try .avi, or .jsonl")

    def _check_space(self) -> None:
        free = shutil.disk_usage(str(self._path.parent)).free
        if free < self._reserve:
            raise OutputError(
                f"the disk of '{self._path}' is full ({free / 1e6:.0f} MB free, {self._reserve / 1e6:.0f} MB are kept "
                f"to finish the video); {self._frames} frames were written"
            )

    def close(self) -> None:
        """Finish the file, prove that it can be read, and give it its name.

        Raises:
            OutputError: It is not whole, for instance because the disk was full; it then keeps its temporary name.
        """
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        if not self._frames:
            _remove(self._temporary)
            return
        if not _readable(self._temporary, self._frames):
            raise OutputError(
                f"the video '{self._path}' is damaged: is its disk full, or is there a limit on file sizes? "
                f"What was written is in '{self._temporary}'"
            )
        try:
            os.replace(str(self._temporary), str(self._path))
        except OSError as exc:
            raise OutputError(f"'{self._path}' cannot be written ({exc.strerror or exc})") from exc


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image scaled into a size (width, height), centred on black; only cut where a single line is odd."""
    width, height = size
    if 0 <= image.shape[1] - width <= 1 and 0 <= image.shape[0] - height <= 1:
        return np.ascontiguousarray(image[:height, :width])
    gain = min(width / image.shape[1], height / image.shape[0])
    inner = max(round(image.shape[1] * gain), 1), max(round(image.shape[0] * gain), 1)
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    return canvas


def _readable(path: Path, frames: int) -> bool:
    """Whether a video holds so many frames and its last one can be decoded."""
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened() or capture.get(cv2.CAP_PROP_FRAME_COUNT) < frames:
            return False
        # The last one: a file that was cut off opens and counts as its header says.
        capture.set(cv2.CAP_PROP_POS_FRAMES, frames - 1)
        return bool(capture.read()[0])
    finally:
        capture.release()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
