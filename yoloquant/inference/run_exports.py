"""Real-time detection and benchmarks with what was exported: a bundle, or an artifact in an export folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import targets
from ..errors import ArtifactError, UsageError
from ..runtime.apps.running import BundleOpener, RunnableModel, Running, matched_confidences
from ..targets.exports import load_exports
from ..types import HeadLayout

if TYPE_CHECKING:
    from ..runtime.apps.bench import BenchOptions
    from ..runtime.apps.bench_report import Report
    from ..runtime.apps.predict import PredictOptions
    from ..runtime.apps.predict_summary import Summary
    from ..runtime.apps.settings import VerbSettings
    from ..runtime.core.detector import Detector
    from ..types import ExportedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArtifactOpener:
    """Loads one artifact or bundle; can be sent to another process.

    Attributes:
        path: The bundle's folder, or the artifact in its export folder.
        running: How it is run.
    """

    path: str
    running: Running = field(default_factory=Running)

    def network(self) -> RunnableModel:
        """What is there.

        Raises:
            ArtifactError: It is damaged, or nobody knows what it holds.
            UsageError: It cannot run as it is.
        """
        # a bundle first: its own manifest says what it holds, and its files are checked against it
        if is_bundle(Path(self.path)):
            return BundleOpener(self.path, self.running).network()
        return _single(self.path)

    def __call__(self) -> Detector:
        """Load it.

        Raises:
            ArtifactError: It is damaged, or nobody knows what it holds.
            UsageError: It cannot run as it is.
            TargetError: The runtime refuses it.
        """
        return self.running.open(self.network())


def is_bundle(path: Path) -> bool:
    """Whether a folder is a bundle."""
    from ..runtime.core.bundle_manifest import FILE_NAME

    return (path / FILE_NAME).is_file()


def _network(export: ExportedModel) -> RunnableModel | None:
    """What of an artifact runs here; None if it has to be built first."""
    target = targets.get(export.target)
    # None for an ONNX that an engine is built from on its device
    path = target.runnable(export)
    if path is None:
        return None
    # what validation stored, if it did: conf=matched stands for it
    matched = matched_confidences(export.metadata, export.info)
    return RunnableModel(target.device_backend(), path, export.info, export.layout is HeadLayout.RAW, *matched)


def _exports(path: str | Path) -> tuple[ExportedModel, ...]:
    """What a path names; an engine stands for the model that it was built from."""
    named = Path(path)
    # exports.json lists what was exported, not what was built from it later
    return load_exports(named.with_suffix(".onnx") if named.suffix == ".engine" and named.is_file() else named)


def _single(path: str) -> RunnableModel:
    """The one artifact that a path names.

    Raises:
        UsageError: The folder holds several, or only one that does not run as it is.
    """
    found = _exports(path)
    running = [network for network in map(_network, found) if network]
    # of several artifacts the one that runs here is meant, without a question
    if len(running) == 1:
        return running[0]
    # one file that has to be built is no mistake of the export, so the message says what to do
    if not running:
        raise UsageError(
            f"'{path}' holds only a network for {', '.join(e.target for e in found)}, which does not run as it is; "
            "export a bundle for the device and build the engine there"
        )
    raise UsageError(f"'{path}' holds {len(running)} artifacts; name one: {', '.join(str(n.path) for n in running)}")


def openers(paths: Iterable[str], running: Running | None = None) -> dict[str, ArtifactOpener]:
    """What loads each artifact, by name.

    Args:
        paths: Bundles, artifacts, or export folders, of which every artifact that runs as it is counts.
        running: How they are run.

    Raises:
        ArtifactError: One is missing or damaged, or none of an export folder runs as it is.
    """
    running = running or Running()
    openers: dict[str, ArtifactOpener] = {}
    for text in paths:
        path = Path(text)
        for each in [path] if is_bundle(path) else _running(path):
            name = each.resolve().name
            # short names, unless two folders hold artifacts of one name
            openers[name if name not in openers else str(each)] = ArtifactOpener(str(each), running)
    return openers


def _running(path: Path) -> list[Path]:
    folders = []
    for export in _exports(path):
        network = _network(export)
        if network is None:
            # said and not refused: a folder of all exports holds some for other devices
            logger.warning("'%s' is left out: an artifact for %s does not run as it is", export.path, export.target)
        else:
            folders.append(network.path)
    if not folders:
        raise ArtifactError(f"'{path}' holds no artifact that runs as it is; targets are {', '.join(targets.names())}")
    return folders


def predict(
    model: str,
    options: PredictOptions,
    running: Running | None = None,
    say: Callable[[str], None] | None = None,
) -> Summary:
    """Detect in a camera, stream, video or images.

    Args:
        model: A bundle, or an artifact in its export folder.
        options: Source and outputs.
        running: How the network is run; ``options.workers`` share its threads.
        say: Receives JSON lines where no output and no window is there.

    Returns:
        How it went.

    Raises:
        YoloquantError: See ``runtime.apps.predict.predict`` and ``ArtifactOpener``.
    """
    # windows, video and drawing are imported when something is predicted, not for a bench
    from ..runtime.apps.predict import run_network

    running = running or Running()
    return run_network(ArtifactOpener(model, running).network(), running, options, say)


def bench(
    models: Iterable[str], pictures: str = "", running: Running | None = None, options: BenchOptions | None = None
) -> Report:
    """Measure artifacts side by side.

    Args:
        models: Bundles, artifacts or export folders.
        pictures: Source of the pictures (see ``runtime.io.open_source``); made ones if empty.
        running: How the networks are run.
        options: Rounds and runs.

    Returns:
        Latency, throughput, processor time, memory, temperature and power of each.
    """
    from ..runtime.apps.bench import bench as run
    from ..runtime.apps.bench import made_pictures, read_pictures

    return run(openers(models, running), read_pictures(pictures) if pictures else made_pictures(), options)


def texts_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Python values as the runtime's verbs read them."""
    # None is "not given" in Python, and has no text
    texts = {key: value for key, value in values.items() if value is not None}
    return {
        key: str(value).lower()
        if isinstance(value, bool)
        else ",".join(map(str, value))
        if _listed(value)
        else str(value)
        for key, value in texts.items()
    }


def _listed(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def predict_with(values: Mapping[str, Any], say: Callable[[str], None] | None = None) -> Summary:
    """The verb ``predict`` from its arguments.

    Args:
        values: By key; see ``runtime.apps.keys.PREDICT``.
        say: Receives JSON lines where no output and no window is there.

    Raises:
        UsageError: A key is unknown or its value not supported.
    """
    from ..runtime.apps.keys import PREDICT
    from ..runtime.apps.predict import PredictOptions
    from ..runtime.apps.settings import VerbSettings

    # as texts, so that the command and Python are read by the same code and refused in the same words
    settings = VerbSettings(texts_of(values), PREDICT, "predict")
    options = PredictOptions.parse(settings)
    return predict(_model(settings), options, Running.parse(settings), say)


def predict_main(arguments: Mapping[str, str], say: Callable[[str], None]) -> int:
    """The verb ``predict`` of the command; returns the exit code."""
    from ..runtime.apps.predict_summary import report

    return report(predict_with(arguments, say), say)


def bench_with(values: Mapping[str, Any]) -> Report:
    """The verb ``bench`` from its arguments.

    Args:
        values: By key; see ``runtime.apps.keys.BENCH``.

    Raises:
        UsageError: A key is unknown or its value not supported.
    """
    from ..runtime.apps.bench import GOLDEN, parse_options, pictures_of
    from ..runtime.apps.bench import bench as run
    from ..runtime.apps.keys import BENCH
    from ..runtime.apps.settings import VerbSettings

    settings = VerbSettings(texts_of(values), BENCH, "bench")
    options = parse_options(settings)
    # several, since a bench lets them take turns
    models = [part.strip() for part in _model(settings).split(",") if part.strip()]
    found = openers(models, Running.parse(settings))
    # a bundle brings pictures of its own: better than made ones, and the same on every device
    golden = next((Path(o.path) / GOLDEN for o in found.values() if is_bundle(Path(o.path))), None)
    return run(found, pictures_of(settings, golden), options)


def bench_main(arguments: Mapping[str, str], say: Callable[[str], None]) -> int:
    """The verb ``bench`` of the command; returns the exit code."""
    from ..runtime.apps.bench import finish

    return finish(bench_with(arguments), arguments.get("output", ""), say)


def _model(settings: VerbSettings) -> str:
    model = settings.text("model")
    if not model:
        raise UsageError("model=<a bundle's folder, or an artifact in its export folder> is missing")
    return model
