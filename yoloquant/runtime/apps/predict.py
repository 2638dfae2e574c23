"""The verb ``predict``: run a model on a camera, stream, video or images, and show or write what was found."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.detector import Detector
from ..errors import OutputError, UsageError
from ..io.class_names import read_labels
from ..io.coco_results import CocoResults
from ..io.draw import Painter
from ..io.open_source import open_source
from ..io.sources import Source, SourceOptions
from ..io.window import Window, has_display
from ..io.writers import VIDEO_SUFFIXES, ImageFolder, JsonLines, SaidLines, VideoFile, Writer
from ..tasks import TaskSpec
from .keys import PREDICT as KEYS
from .predict_summary import STANDARD_OUTPUT, Consumer, Summary, report, summarize
from .running import BundleOpener, RunnableModel, Running, own_bundle
from .settings import VerbSettings
from .workers import open_workers, pipeline_of, shares

logger = logging.getLogger(__name__)

# How long an image of a folder stays in the window before the next one replaces it.
_STILL_MS = 500


@dataclass(frozen=True)
class PredictOptions:
    """What to detect in, and where results go.

    Attributes:
        source: See ``open_source``.
        labels: File with other class names; see ``read_labels``.
        outputs: Paths: ``.jsonl`` for JSON lines, ``.json`` for COCO results, a video's suffix for a video, anything
            else for a folder of images; ``-`` for JSON lines to standard output.
        show: Whether to open a window; None for where there is a screen and no output was asked for.
        overlay: Whether pictures show frames per second and latency.
        line: Line width in pixels; chosen by the size of the frame if 0.
        limit: Frames after which to stop.
        workers: Inferences side by side, which share the threads; None to choose, see ``workers.shares``.
        reading: How the source is read.
    """

    source: str
    labels: str = ""
    outputs: tuple[str, ...] = ()
    show: bool | None = None
    overlay: bool = True
    line: int = 0
    limit: int | None = None
    workers: int | None = None
    reading: SourceOptions = field(default_factory=SourceOptions)

    @classmethod
    def parse(cls, settings: VerbSettings) -> PredictOptions:
        """Read a verb's arguments.

        Raises:
            UsageError: A value is not allowed.
        """
        show, source = settings.text("show", "auto"), settings.text("source")
        if not source:
            raise UsageError("predict needs source=<camera number, stream address, video, folder or image>")
        fps = settings.number("fps", 0, 0, 1000)
        return cls(
            source=source,
            labels=settings.text("labels"),
            outputs=tuple(part.strip() for part in settings.text("output").split(",") if part.strip()),
            show=None if show == "auto" else settings.flag("show", False),
            overlay=settings.flag("overlay", True),
            line=settings.whole("line", 0, 0) or 0,
            limit=settings.whole("limit", None),
            workers=None if settings.text("workers", "auto") == "auto" else settings.whole("workers", None),
            reading=SourceOptions(
                timeout=settings.number("timeout", 10.0, 0.1, 86400),
                reconnect=settings.whole("reconnect", 0, 0) or 0,
                size=_size(settings.text("size")),
                fps=fps or None,
            ),
        )


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = re.match(r"(\d+)[x,](\d+)$", text)
    if found is None or not int(found[1]) or not int(found[2]):
        raise UsageError(f"size={text} is not supported; allowed is widthxheight in pixels, for instance 1280x720")
    return int(found[1]), int(found[2])


def predict(
    detector: Detector | Sequence[Detector], options: PredictOptions, say: Callable[[str], None] | None = None
) -> Summary:
    """Detect until the source ends.

    Args:
        detector: The model, or one of it for each worker; they stay open.
        options: Source and outputs.
        say: Receives JSON lines where no output and no window is there, or the output ``-`` was asked for.

    Returns:
        How it went; a source that was lost on the way is in its ``outcome``.

    Raises:
        UsageError: A window was asked for, but there is no screen.
        DataError: There is no such source, or the labels do not fit.
        SourceError: The source does not open.
        OutputError: An output cannot be written, or not to its end.
        TargetError: The network failed.
    """
    detectors = [detector] if isinstance(detector, Detector) else list(detector)
    names, task = detectors[0].info.names, detectors[0].task
    if options.labels:
        names = read_labels(Path(options.labels), len(names))
    window = _wants_window(options)
    outputs = options.outputs or (() if window else (STANDARD_OUTPUT,))
    # Every kind before anything opens: a wrong suffix must not be found once a camera runs.
    for text in outputs:
        _check_kind(text)
    source = open_source(options.source, options.reading)
    writers: list[Writer] = []
    try:
        for text in outputs:
            writers.append(_writer(text, source, (names, task), say or logger.info))
    # Also for Ctrl-C: a camera that stays open is busy for the next program.
    except BaseException:
        source.close()
        _close(writers, failing=True)
        raise
    # 1 ms and not 0, for which OpenCV would wait for a key.
    screen = Window(f"yoloquant {source.name}", _STILL_MS if source.still else 1) if window else None
    # Only where somebody sees it: drawing and copying labels takes a share of every frame's time.
    painter = Painter(names, options.line) if screen or any(s.pictures for s in writers) else None
    consumer = Consumer(writers, painter, options.overlay, task)
    pipeline = pipeline_of(source, detectors, consumer, show=screen.show if screen else None, limit=options.limit)
    # Until the run has ended well, so that an output's own error cannot hide the one that ended it.
    failing = True
    try:
        with _stop_signals(pipeline.stop):
            outcome = pipeline.run()
        failing = False
    finally:
        if screen:
            screen.close()
        _close(writers, failing=failing)
    return summarize(outcome, consumer, names, source, outputs)


def run_network(
    network: RunnableModel, running: Running, options: PredictOptions, say: Callable[[str], None] | None = None
) -> Summary:
    """Load a network as often as there are workers, detect until the source ends, and free it.

    Args:
        network: What to load.
        running: How it is run.
        options: Source, outputs and workers.
        say: See ``predict``.

    Raises:
        YoloquantError: See ``predict``, ``workers.shares`` and ``open_backend``.
    """
    threads = shares(options.workers, network, running, options.source)
    with open_workers(network, running, threads) as detectors:
        return predict(detectors, options, say)


def _wants_window(options: PredictOptions) -> bool:
    if options.show is None:
        return not options.outputs and has_display()
    if options.show and not has_display():
        raise UsageError("show=true needs a screen and an OpenCV with windows (not the headless one); use output=")
    return options.show


def _writer(text: str, source: Source, shown: tuple[Sequence[str], TaskSpec], say: Callable[[str], None]) -> Writer:
    path = Path(text).expanduser()
    if text == STANDARD_OUTPUT:
        return SaidLines(say, *shown)
    _check_apart(path, Path(source.name), text)
    if path.suffix.lower() == ".jsonl":
        return JsonLines(path, *shown)
    if path.suffix.lower() == ".json":
        return CocoResults(path, *shown)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoFile(path, source.fps, steady=source.live)
    return ImageFolder(path)


def _check_kind(text: str) -> None:
    """Raise UsageError for a file of an unknown kind."""
    path = Path(text).expanduser()
    known = {"", ".json", ".jsonl", *VIDEO_SUFFIXES}
    if path.suffix.lower() not in known and not path.is_dir() and not text.endswith("/"):
        raise UsageError(
            f"output '{text}' is not supported; allowed are .jsonl, .json, {', '.join(sorted(VIDEO_SUFFIXES))}, a "
            "folder/ for images, and - for JSON lines"
        )


def _check_apart(output: Path, source: Path, text: str) -> None:
    """Raise UsageError if an output would replace what is read."""
    # A folder of images would be written over the images that are read: they keep their names.
    taken = [place for place in (source, source.parent if source.is_file() else source) if place.exists()]
    if output.exists() and any(output.samefile(place) for place in taken):
        raise UsageError(f"output '{text}' would replace the source; choose another place")


def _close(writers: Sequence[Writer], *, failing: bool) -> None:
    """Close every output; the first error is raised, unless there is one already, and further ones are logged."""
    first: OutputError | None = None
    for writer in writers:
        try:
            writer.close()
        except OutputError as exc:
            if failing or first is not None:
                logger.warning("%s", exc)
            else:
                first = exc
    if first is not None:
        raise first


@contextmanager
def _stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and a service manager's request end the run in order; a second one ends it at once."""
    # Python sets signal handlers in the main thread alone.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = []

    def handle(number: int, frame: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: dict[str, str], say: Callable[[str], None] = logger.info) -> int:
    """Run the verb on a bundle.

    Args:
        arguments: Texts by key; ``model`` is the bundle's folder, by default the one that holds this package.
        say: Receives what is to be printed.

    Returns:
        The exit code 0; errors are raised.
    """
    settings = VerbSettings(arguments, KEYS, "predict")
    options = PredictOptions.parse(settings)
    running = Running.parse(settings)
    network = BundleOpener(settings.text("model") or own_bundle(), running).network()
    return report(run_network(network, running, options, say), say)
