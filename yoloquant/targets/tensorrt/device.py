"""What a Jetson needs beside the Q/DQ model; and the engine itself, where this machine can build one."""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ArtifactError, PlanError, TargetError
from ...io import atomic_path, write_text

if TYPE_CHECKING:
    import onnx

    from ...quantization.artifact import Artifact
    from ...types import ExportedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceFiles:
    """Files that ``write_device_files`` wrote.

    Attributes:
        strongly_typed: The model for TensorRT 11.
        plain: The model for a DLA; None if the artifact lacks ranges for it.
        calibration: Its calibration cache; None with it.
        notes: What a person should know.
    """

    strongly_typed: Path
    plain: Path | None = None
    calibration: Path | None = None
    notes: tuple[str, ...] = ()


def write_device_files(path: Path, artifact: Artifact | None = None) -> DeviceFiles:
    """Write the models for TensorRT 11 and for a DLA beside an exported one, under names that the device looks for.

    Args:
        path: The ``.onnx`` that this target exported, or a copy of it.
        artifact: What it was exported from; without it there are no files for a DLA.

    Raises:
        ArtifactError: The model cannot be read.
        TargetError: It cannot be derived from.
        OutputError: The folder cannot be written.
    """
    from ...runtime.tensorrt.build_options import Sources
    from ...runtime.tensorrt.calibration_cache import dump
    from .half import to_half
    from .plain import emit_plain

    sources = Sources.beside(path)
    model = _load(path)
    _save(to_half(model), sources.strongly_typed)
    if artifact is None:
        return DeviceFiles(sources.strongly_typed)
    metadata = {p.key: p.value for p in model.metadata_props}
    try:
        plain, scales = emit_plain(artifact, metadata)
    except PlanError as exc:
        note = f"no model for a DLA: {exc}"
        logger.warning("%s", note)
        return DeviceFiles(sources.strongly_typed, notes=(note,))
    _save(plain, sources.plain)
    write_text(sources.calibration, dump(scales))
    return DeviceFiles(sources.strongly_typed, sources.plain, sources.calibration)


def add_companions(model: Path, artifact: Artifact, exported: ExportedModel) -> tuple[str, ...]:
    """Put into a bundle what a Jetson needs beside the model; see ``Target.add_companions``."""
    from ...runtime.tensorrt.build import FOLDER

    notes = write_device_files(model, artifact if exported.precision == "int8" else None).notes
    built = exported.metadata.get("engine", {})
    if not built:
        return notes
    folder = model.parent / FOLDER
    # Where the device looks for engines, so that it does not build one that came along.
    folder.mkdir()
    shutil.copyfile(exported.path.with_name(built["path"]), folder / built["path"])
    engine = f"an engine for {built['gpu']} with TensorRT {built['tensorrt']} is in the bundle; others are built there"
    return (*notes, engine)


def build_here(exported: ExportedModel) -> tuple[dict[str, Any], str]:
    """Build the engine of an exported model, if this machine has TensorRT and a GPU.

    Args:
        exported: What the target exported; the engine is written beside it as ``.engine``.

    Returns:
        The engine as plain data (empty if none was built), and a sentence for people.

    Raises:
        TargetError: The machine has both, but the build failed or runs planned convolutions in another type.
    """
    from ...runtime.device.cuda import open_cuda
    from ...runtime.tensorrt import api

    later = "build_engine in the bundle builds it on the device"
    if not api.is_installed():
        return {}, f"no engine was built: TensorRT is not installed here; {later}"
    try:
        release, cuda = api.load(), open_cuda()
    except TargetError as exc:
        return {}, f"no engine was built: {exc}; {later}"
    try:
        return _build(exported, release, cuda)
    finally:
        cuda.close()


def engine_identity() -> dict[str, str]:
    """What ``build_here`` would build an engine for; empty where it would build none."""
    from ...runtime.device.cuda import open_cuda
    from ...runtime.tensorrt import api
    from ...runtime.tensorrt.identity import Identity

    if not api.is_installed():
        return {}
    try:
        release, cuda = api.load(), open_cuda()
    except TargetError:
        return {}
    try:
        return asdict(Identity.of(release.version, cuda.gpu))
    finally:
        cuda.close()


def _build(exported: ExportedModel, release: Any, cuda: Any) -> tuple[dict[str, Any], str]:
    from ...runtime.tensorrt.build import Request, build_engine
    from ...runtime.tensorrt.build_options import Sources

    target = exported.path.with_suffix(".engine")
    with tempfile.TemporaryDirectory(prefix="yoloquant-engine-") as scratch:
        # In a folder of its own: engines and timing caches are written beside the model.
        copy = Path(scratch, exported.path.name)
        shutil.copyfile(exported.path, copy)
        # TensorRT 11 builds from a model of its own, which an export does not hold.
        if release.strongly_typed:
            write_device_files(copy)
        request = Request(Sources.beside(copy), exported.info, tuple(exported.metadata["planned_convs"]))
        built = build_engine(request, release, cuda)
        with atomic_path(target) as temporary:
            shutil.copyfile(built.path, temporary)
    said = built.int8.summary() if built.int8 is not None else ""
    data = {"path": target.name, "tensorrt": release.version, "gpu": cuda.gpu.name, "int8": said}
    return data, f"engine {target.name} for TensorRT {release.version} on {cuda.gpu.name}: {said}"


def _load(path: Path) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.load(path)
    except Exception as exc:  # protobuf raises classes of its own
        raise ArtifactError(f"'{path}' is no readable ONNX file ({exc}); export it again") from exc


def _save(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    with atomic_path(path) as temporary:
        onnx.save(model, temporary)
