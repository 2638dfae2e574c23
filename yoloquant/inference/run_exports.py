"""Real-time detection and benchmarks with what was exported: a bundle, or an artifact in an export folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .. import targets
from ..errors import ArtifactError, UsageError
from ..runtime.apps.running import BundleOpener, Network, Running
from ..targets.exports import load_exports
from ..types import HeadLayout

if TYPE_CHECKING:
    from ..runtime.apps.bench import BenchOptions
    from ..runtime.apps.bench_report import Report
    from ..runtime.apps.predict import PredictOptions
    from ..runtime.apps.predict_summary import Summary
    from ..runtime.apps.settings import Settings
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

    def network(self) -> Network:
        """What is there.

        Raises:
            ArtifactError: It is damaged, or nobody knows what it holds.
            UsageError: It cannot run as it is.
        """
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


def _network(export: ExportedModel) -> Network | None:
    """What of an artifact runs here; None if it has to be built first."""
    target = targets.get(export.target)
    path = target.runnable(export)
    return Network(target.device_backend(), path, export.info, export.layout is HeadLayout.RAW) if path else None


def _exports(path: str | Path) -> tuple[ExportedModel, ...]:
    """What a path names; an engine stands for the model that it was built from."""
    named = Path(path)
    return load_exports(named.with_suffix(".onnx") if named.suffix == ".engine" and named.is_file() else named)


def _single(path: str) -> Network:
    """The one artifact that a path names.

    Raises:
        UsageError: The folder holds several, or only one that does not run as it is.
    """
    found = _exports(path)
    running = [network for network in map(_network, found) if network]
    if len(running) == 1:
        return running[0]
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
    found: dict[str, ArtifactOpener] = {}
    for text in paths:
        path = Path(text)
        for each in [path] if is_bundle(path) else _running(path):
            name = each.resolve().name
            found[name if name not in found else str(each)] = ArtifactOpener(str(each), running)
    return found


def _running(path: Path) -> list[Path]:
    found = []
    for export in _exports(path):
        network = _network(export)
        if network is None:
            logger.warning("'%s' is left out: an artifact for %s does not run as it is", export.path, export.target)
        else:
            found.append(network.path)
    if not found:
        raise ArtifactError(f"'{path}' holds no artifact that runs as it is; targets are {', '.join(targets.names())}")
    return found


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
        YoloquantError: See ``runtime.predict.predict`` and ``ArtifactOpener``.
    """
    from ..runtime.apps.predict import run_network

    running = running or Running()
    return run_network(ArtifactOpener(model, running).network(), running, options, say)


def bench(
    models: Iterable[str], pictures: str = "", running: Running | None = None, options: BenchOptions | None = None
) -> Report:
    """Measure artifacts side by side.

    Args:
        models: Bundles, artifacts or export folders.
        pictures: Source of the pictures (see ``runtime.open_source``); made ones if empty.
        running: How the networks are run.
        options: Rounds and runs.

    Returns:
        Latency, throughput, processor time, memory, temperature and power of each.
    """
    from ..runtime.apps.bench import bench as run
    from ..runtime.apps.bench import made_pictures, read_pictures

    return run(openers(models, running), read_pictures(pictures) if pictures else made_pictures(), options)


def predict_main(arguments: dict[str, str], say: Callable[[str], None]) -> int:
    """The verb ``predict`` of the package.

    Args:
        arguments: Texts by key; see ``runtime.predict.KEYS``.
        say: Receives what is to be printed.

    Returns:
        The exit code.
    """
    from ..runtime.apps.keys import PREDICT as KEYS
    from ..runtime.apps.predict import PredictOptions
    from ..runtime.apps.predict_summary import report
    from ..runtime.apps.settings import Settings

    settings = Settings(arguments, KEYS, "predict")
    options = PredictOptions.parse(settings)
    return report(predict(_model(settings), options, Running.parse(settings), say), say)


def bench_main(arguments: dict[str, str], say: Callable[[str], None]) -> int:
    """The verb ``bench`` of the package.

    Args:
        arguments: Texts by key; see ``runtime.bench.KEYS``.
        say: Receives what is to be printed.

    Returns:
        The exit code.
    """
    from ..runtime.apps.bench import GOLDEN, finish, parse_options, pictures_of
    from ..runtime.apps.bench import bench as run
    from ..runtime.apps.keys import BENCH as KEYS
    from ..runtime.apps.settings import Settings

    settings = Settings(arguments, KEYS, "bench")
    options = parse_options(settings)
    models = [part.strip() for part in _model(settings).split(",") if part.strip()]
    found = openers(models, Running.parse(settings))
    golden = next((Path(o.path) / GOLDEN for o in found.values() if is_bundle(Path(o.path))), None)
    report = run(found, pictures_of(settings, golden), options)
    return finish(report, settings.text("output"), say)


def _model(settings: Settings) -> str:
    model = settings.text("model")
    if not model:
        raise UsageError("model=<a bundle's folder, or an artifact in its export folder> is missing")
    return model
