"""Build an engine on the device it will run on, check it, and keep it for the next time."""

from __future__ import annotations

import logging
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.folder_check import file_sha256
from ..core.model_info import ModelInfo
from ..device.cuda import Cuda, open_cuda
from ..errors import ArtifactError, TargetError
from . import layers
from .api import TensorRT, load
from .build_options import BuildOptions, Sources
from .compile import CompiledEngine, compile_plan, model_for
from .header import EngineFile, header_metadata, read_header, write_engine, write_whole
from .identity import Identity

logger = logging.getLogger(__name__)

FOLDER = "engines"


@dataclass(frozen=True)
class Request:
    """What to build.

    Attributes:
        sources: The models.
        info: What the model is.
        planned: Names of the layers that must run in Int8.
        options: How to build.
        folder: Where engines are kept; ``engines`` beside the model if None.
    """

    sources: Sources
    info: ModelInfo
    planned: tuple[str, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)
    folder: Path | None = None

    @property
    def engines(self) -> Path:
        """Where engines are kept."""
        return self.folder if self.folder is not None else self.sources.onnx.parent / FOLDER


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that is ready.

    Attributes:
        path: The engine file.
        fresh: Whether it was built now; False if a fitting one was there.
        int8: What the engine inspector said; None if it was not asked, or the engine was there.
        compiled: What the builder made; None if the engine was there.
    """

    path: Path
    fresh: bool
    int8: layers.Int8Report | None = None
    compiled: CompiledEngine | None = None


def build_engine(request: Request, api: TensorRT | None = None, cuda: Cuda | None = None) -> BuiltEngine:
    """Build an engine for this device, or find the one that was built before.

    The engine is kept under a name that holds for this TensorRT, GPU, JetPack, model and options only. It is written
    under a temporary name and renamed when it is whole and checked, so whatever stops a build leaves nothing that could
    be picked up.

    Args:
        request: What to build.
        api: The TensorRT release; the installed one if None.
        cuda: The device; the one in the options if None.

    Raises:
        MissingRuntimeError: TensorRT, or everything that reaches the GPU, is not installed.
        TargetError: The build failed.
        Int8Error: Planned layers do not run in Int8; the message names them.
        ArtifactError: A model is missing or damaged.
        UsageError: This release does not know an option.
        OutputError: The engine cannot be written.
    """
    api = api or load()
    model = model_for(api, request.sources, request.options)
    # A device that was handed in stays open for whoever opened it.
    own = cuda is None
    cuda = cuda or open_cuda(request.options.device)
    try:
        identity = Identity.of(api.version, cuda.gpu)
        path = engine_path(request, identity, model)
        if not request.options.force and _usable(path):
            logger.info("the engine %s fits and is taken as it is", path)
            return BuiltEngine(path, fresh=False)
        with cuda.active():
            return _build(request, api, identity, model, path)
    finally:
        if own:
            cuda.close()


def ready_engine(request: Request, api: TensorRT | None = None, cuda: Cuda | None = None) -> BuiltEngine:
    """The newest engine that was built on this device from a model, whatever its options were; else a new one.

    Args:
        request: What to build if there is none.
        api: See ``build_engine``.
        cuda: See ``build_engine``.

    Raises:
        YoloquantError: See ``build_engine``.
    """
    api = api or load()
    own = cuda is None
    cuda = cuda or open_cuda(request.options.device)
    try:
        engine = find_engine(request.sources.onnx, Identity.of(api.version, cuda.gpu), request.folder)
        # Proves its hash: a damaged one is built again below.
        engine.plan()
        return BuiltEngine(engine.path, fresh=False)
    except ArtifactError as exc:  # there is none, or it was damaged
        logger.warning("%s; it is built now, which takes minutes", str(exc).partition("; ")[0])
        return build_engine(request, api, cuda)
    finally:
        if own:
            cuda.close()


def engine_path(request: Request, identity: Identity, model: Path) -> Path:
    """Where the engine of a request lies on a device."""
    # the model's content and not its name: an engine of an older export must not be found
    hashes = [file_sha256(model)]
    if request.options.dla is not None:
        # the same network with other scales is another engine
        hashes.append(file_sha256(request.sources.calibration))
    key = identity.key(hashes, request.options.engine_key())
    # names from checkpoints may hold anything; the key alone identifies the engine
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", model.stem)
    return request.engines / f"{stem}-{key[:16]}.engine"


def _usable(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        read_header(path).plan()
    except ArtifactError as exc:
        logger.warning("%s; it is built again", exc)
        return False
    return True


def _build(request: Request, api: TensorRT, identity: Identity, model: Path, path: Path) -> BuiltEngine:
    options = request.options
    # named by the identity: timings of another GPU or release would be refused by TensorRT or, worse, believed
    timing_file = options.timing_cache or request.engines / f"timing-{identity.key()[:16]}.cache"
    # measured kernels of earlier builds on this device: a rebuild takes a part of the time
    timings = timing_file.read_bytes() if timing_file.is_file() else b""
    compiled = compile_plan(api, model, options, request.sources.calibration, timings)
    if compiled.timings:
        write_whole(timing_file, compiled.timings)
    # before the engine is written: one that is not what was planned must not be picked up by the next start
    report = _check(request, api, compiled)
    ours: dict[str, Any] = {
        **asdict(identity),
        "model": model.name,
        "model_sha256": file_sha256(model),
        "options": options.engine_key(),
        "int8": asdict(report) if report is not None else None,
        "fallback": [list(layer) for layer in compiled.dla.fallback] if compiled.dla else [],
    }
    write_engine(path, compiled.plan, header_metadata(request.info, options.dla), ours)
    return BuiltEngine(path, True, report, compiled)


def _check(request: Request, api: TensorRT, compiled: CompiledEngine) -> layers.Int8Report | None:
    """Ask the finished engine for its layers; a DLA's regions do not show theirs, so those are not asked.

    Raises:
        TargetError: The engine does not load.
        Int8Error: Planned layers do not run in Int8, and that is to be an error.
    """
    engine = deserialize(api, compiled.plan, request.options.dla)
    # after deserializing, which is a check of its own
    if request.options.check == "off" or request.options.dla is not None or not request.planned:
        return None
    report = layers.check(layers.inspect(api.module, engine), request.planned)
    if report.ok:
        logger.info("%s", report.summary())
    elif request.options.check == "warn":
        logger.warning("%s", report.summary())
    else:
        raise layers.Int8Error(
            f"the engine is not what was planned: {report.summary()}; build with check=warn to use it nevertheless"
        )
    return report


def deserialize(api: TensorRT, plan: bytes, dla_core: Any = None) -> Any:
    """Load a plan.

    Returns:
        The engine; it keeps its runtime and logger alive.

    Raises:
        TargetError: TensorRT refuses it.
    """
    trt_logger = api.logger()
    # the engine refers to runtime and logger without keeping them, which Python must do
    runtime = api.module.Runtime(trt_logger)
    if dla_core is not None:
        runtime.DLA_core = int(dla_core)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        said = "; ".join(trt_logger.lines[-3:]) or "it gave no reason"
        raise TargetError(f"TensorRT {api.version} cannot load the engine: {said}")
    return engine


def find_engine(onnx: Path, identity: Identity, folder: Path | None = None) -> EngineFile:
    """The newest engine that was built on this device from a bundle's model.

    Args:
        onnx: The bundle's model; engines made from its siblings for TensorRT 11 or a DLA count as well.
        identity: This device.
        folder: Where engines are kept; ``engines`` beside the model if None.

    Raises:
        ArtifactError: There is none; the message says why those that are there do not fit.
    """
    sources = Sources.beside(onnx)
    models = {path.name: path for path in (sources.onnx, sources.strongly_typed, sources.plain) if path.is_file()}
    hashes: dict[str, str] = {}
    engines = folder if folder is not None else onnx.parent / FOLDER
    # kept for every engine that does not fit: 'there is none' alone would send people searching
    reasons = []
    # several may fit, built with other options: the last one is what the user tried last
    for path in sorted(engines.glob("*.engine"), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            header = read_header(path)
        except ArtifactError as exc:
            reasons.append(str(exc))
            continue
        name = str(header.ours.get("model"))
        if name in models and name not in hashes:
            hashes[name] = file_sha256(models[name])
        if header.ours.get("model_sha256") != hashes.get(name, ""):
            reasons.append(f"{path.name} was built from another model")
            continue
        why = identity.differences(header.ours)
        if not why:
            return header
        reasons.append(f"{path.name}: {why}")
    detail = f" ({'; '.join(reasons)})" if reasons else ""
    raise ArtifactError(
        f"no engine for this device was built from '{onnx}' yet{detail}; run: python -m yoloquant_runtime build_engine"
    )
