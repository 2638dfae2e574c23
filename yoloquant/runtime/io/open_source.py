"""What a person calls a source, and the source itself."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import cv2

from ..errors import DataError, SourceError, UsageError
from .sources import ImageSource, LiveSource, Source, SourceOptions, VideoSource

logger = logging.getLogger(__name__)

_SILENT_CAMERA = (
    "; a CSI camera opens like this and gives no picture without its own pipeline: on a Jetson "
    "source='nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! appsink', on a Raspberry Pi "
    "source='libcamerasrc ! videoconvert ! appsink' (an OpenCV with GStreamer)"
)
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def open_source(text: str, options: SourceOptions | None = None) -> Source:
    """Open a source.

    Args:
        text: A camera's number (``0``) or device (``/dev/video0``, ``/dev/v4l/by-id/...``), the address of a
            stream (``rtsp://...``), a
            GStreamer pipeline (``... ! appsink``), or the path of an image, a video or a folder of images.
        options: How it is read.

    Raises:
        UsageError: The text is empty.
        DataError: There is no such file, folder or camera, or it holds no picture.
        SourceError: A device or stream does not open.
    """
    options, text = options or SourceOptions(), text.strip()
    if not text:
        raise UsageError("source is empty; allowed are a camera number, a stream address, or a path")
    # Before paths: a bare number is a camera, whatever files are called here.
    number = camera_number(text)
    if number is not None:
        return LiveSource(text, lambda: _open_camera(number, options), options, hint=_SILENT_CAMERA)
    # Before addresses, which a pipeline may hold itself.
    if " ! " in text:
        return LiveSource("GStreamer", lambda: _open_pipeline(text), options)
    if "://" in text:
        return _network_source(text, options)
    path = Path(text).expanduser()
    if not path.exists():
        raise DataError(f"source '{text}' does not exist; allowed are a camera number, a stream address, or a path")
    if path.is_dir():
        images = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not images:
            raise DataError(f"folder '{text}' holds no image; known are {', '.join(sorted(IMAGE_SUFFIXES))}")
        return ImageSource(images, options.timeout)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource([path], options.timeout)
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise DataError(f"source '{text}' is neither an image nor a video that OpenCV can decode")
    return VideoSource(str(path), capture, options.timeout)


def can_wait(text: str) -> bool:
    """Whether a source, not opened yet, has frames that can wait, and more than one: a video's file or a folder."""
    text = text.strip()
    if camera_number(text) is not None or " ! " in text or "://" in text:
        return False
    path = Path(text).expanduser()
    return path.is_dir() or path.suffix.lower() not in IMAGE_SUFFIXES


def camera_number(text: str) -> int | None:
    """The number of a camera: of ``0``, ``/dev/video0``, or a link to one that keeps its name (``/dev/v4l/by-id/...``).

    Returns:
        The number; None if the text names no camera.

    Raises:
        DataError: It is a link under ``/dev/v4l`` that does not exist; the message names those that do.
    """
    if text.isdigit():
        return int(text)
    device = re.match(r"/dev/video(\d+)$", text) or re.match(r"/dev/video(\d+)$", os.path.realpath(text))
    if device is None and text.startswith("/dev/v4l/"):
        links = sorted(str(p) for p in Path("/dev/v4l").glob("by-*/*"))
        raise DataError(f"there is no camera '{text}'; cameras here: {', '.join(links) or 'none'}")
    return int(device[1]) if device else None


def _network_source(address: str, options: SourceOptions) -> Source:
    """A live stream, or a video file that a web server holds: only that one knows how long it is."""
    name, first = _without_password(address), _open_stream(address, options)
    if address.startswith(("http://", "https://")) and first.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        return VideoSource(name, first, options.timeout)
    # The connection that was made to find out is the one that is read; only a reconnect makes another.
    opened = [first]
    return LiveSource(name, lambda: opened.pop() if opened else _open_stream(address, options), options)


def _open_camera(number: int, options: SourceOptions) -> Any:
    device = Path(f"/dev/video{number}")
    if os.name == "posix" and os.uname().sysname == "Linux" and not device.exists():
        cameras = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
        raise DataError(f"there is no camera {number} ({device} does not exist); cameras here: {cameras}")
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise SourceError(f"camera {number} cannot be opened; is it in use, or are you not in the group 'video'?")
    if options.size:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size[1])
    if options.fps:
        capture.set(cv2.CAP_PROP_FPS, options.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # old pictures are of no use; not every driver obeys
    return capture


def _open_stream(address: str, options: SourceOptions) -> Any:
    milliseconds = int(options.timeout * 1e3)
    # OpenCV's own limits are 30 s for each, which nobody waits for a camera that is switched off.
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
    capture = cv2.VideoCapture()
    try:
        capture.open(address, cv2.CAP_FFMPEG, limits)
    except cv2.error as exc:
        logger.warning("%s", exc)
    if not capture.isOpened():
        raise SourceError(
            f"stream '{_without_password(address)}' did not open within {options.timeout:g} s; "
            "check the address and that its server runs, or give it longer with timeout="
        )
    return capture


def _open_pipeline(text: str) -> Any:
    capture = cv2.VideoCapture(text, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        backends = [cv2.videoio_registry.getBackendName(b) for b in cv2.videoio_registry.getBackends()]
        missing = "" if "GSTREAMER" in backends else "; this OpenCV was built without GStreamer"
        raise SourceError(f"the GStreamer pipeline '{text}' cannot be opened{missing}")
    return capture


def _without_password(address: str) -> str:
    """An address that can be shown and logged."""
    return re.sub(r"(//[^/@:]+):[^/@]*@", r"\1:***@", address)
