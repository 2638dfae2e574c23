"""What competes: our exports with each runtime's own plan and with the portable one, Ultralytics', and float models."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import numpy as np

from yoloquant import api, targets
from yoloquant.errors import YoloquantError
from yoloquant.quantization.artifact import Artifact
from yoloquant.runtime.backends.openvino import shared_core
from yoloquant.runtime.core.runner import Runner
from yoloquant.targets.base import Target
from yoloquant.types import ExportedModel

from .theirs import TheirExport, load_theirs

logger = logging.getLogger(__name__)

BASELINE = "fp32"
AUTO = "@auto"
"""Marks OpenVINO runs at the float precision that it chooses itself, which is how Ultralytics runs it."""

FUSED = "@fused"
"""Marks TensorRT files in ONNX Runtime with its graph optimizations, which is how Ultralytics runs an ``.onnx``."""


class Kind(str, Enum):
    """Where a contender comes from."""

    BASELINE = "baseline"  # the float model in PyTorch
    FLOAT = "float"  # the float model in the runtime: for latency only
    OURS = "ours"  # a plan made for the runtime
    PORTABLE = "portable"  # the portable plan's ranges, placed for the runtime
    THEIRS = "ultralytics"  # Ultralytics' own INT8 export


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        name: Unique name.
        runtime: Name of our target for the runtime; empty for the baseline.
        kind: Where it comes from.
        path: File or folder.
        size_bytes: Size on disk.
        exported: Our own description of it, if it is ours.
        error: Why it is missing.
        notes: Remarks for people.
        twin_of: Name of the contender whose file this one runs as Ultralytics runs it; empty for a file of its own.
    """

    name: str
    runtime: str
    kind: Kind
    path: Path | None = None
    size_bytes: int = 0
    exported: ExportedModel | None = None
    error: str = ""
    notes: tuple[str, ...] = ()
    twin_of: str = ""

    @property
    def base_runtime(self) -> str:
        """Name of the target, also for a twin."""
        return self.runtime.split("@")[0]

    @property
    def runs_here(self) -> bool:
        """Whether its latency means anything on this machine."""
        return not self.runtime or targets.get(self.base_runtime).capabilities.runs_here


@dataclass
class Field:
    """All contenders, and the runners of those that could be loaded, both by name."""

    contenders: dict[str, Contender] = field(default_factory=dict)
    runners: dict[str, Runner] = field(default_factory=dict)

    def add(self, contender: Contender, runner: Runner | None = None) -> None:
        """Enter a contender."""
        self.contenders[contender.name] = contender
        if runner is not None:
            self.runners[contender.name] = runner

    def fail(self, name: str, error: str) -> None:
        """Note why a contender did not get through."""
        self.contenders[name] = replace(self.contenders[name], error=error)
        runner = self.runners.pop(name, None)
        if runner is not None:
            runner.close()

    def of(self, runtime: str, kind: Kind) -> Contender | None:
        """The contender of a runtime and kind."""
        return next((c for c in self.contenders.values() if (c.runtime, c.kind) == (runtime, kind)), None)

    def close(self) -> None:
        """Free every runner."""
        for runner in self.runners.values():
            runner.close()


def only(artifact: Artifact, scheme: str) -> Artifact:
    """The same model with one plan alone, so that every runtime has to adapt that one."""
    return replace(artifact, plans={scheme: artifact.plans[scheme]})


def add_ours(entered: Field, artifact: Artifact, names: Iterable[str], folder: Path, threads: int) -> None:
    """Export to every target with its own and with the portable plan, and load the results.

    Args:
        entered: Where the contenders are entered, failed ones with their error.
        artifact: The quantized model, with a plan of every scheme.
        names: Names of targets.
        folder: Where exports are written.
        threads: Threads of an inference.
    """
    for kind, source, suffix in (
        (Kind.OURS, artifact, ""),
        (Kind.PORTABLE, only(artifact, "portable"), "_portable"),
    ):
        for name in names:
            logger.info("exporting %s%s", name, suffix)
            _add_one(entered, source, targets.get(name), (kind, f"{name}{suffix}"), folder / kind.value, threads)


def _add_one(
    entered: Field, artifact: Artifact, target: Target, row: tuple[Kind, str], folder: Path, threads: int
) -> None:
    kind, name = row
    try:
        exported = _exported(artifact, target, folder)
        contender = Contender(
            name, target.name, kind, exported.path, exported.size_bytes, exported, notes=exported.notes
        )
        entered.add(contender, target.load(exported, threads))
    except Exception as exc:  # one broken target must not cost the others
        logger.error("%s: %s", name, exc, exc_info=not isinstance(exc, YoloquantError))
        entered.add(Contender(name, target.name, kind, error=f"{type(exc).__name__}: {exc}"))


def _exported(artifact: Artifact, target: Target, folder: Path) -> ExportedModel:
    return api.export(artifact, targets=[target.name], output=folder / target.name).exports[0]


def add_theirs(entered: Field, exports: Iterable[TheirExport], artifact: Artifact, threads: int) -> None:
    """Load Ultralytics' exports."""
    for export in exports:
        contender = Contender(
            f"{export.runtime}_ultralytics", export.runtime, Kind.THEIRS, export.path, export.size_bytes
        )
        if export.path is None:
            entered.add(replace(contender, error=export.error))
            continue
        try:
            entered.add(contender, load_theirs(export, artifact.info, threads))
        except Exception as exc:
            logger.exception("%s cannot be loaded", contender.name)
            entered.add(replace(contender, error=f"{type(exc).__name__}: {exc}"))


def add_floats(entered: Field, artifact: Artifact, names: Iterable[str], folder: Path, threads: int) -> None:
    """Export the float model to every runtime that runs here, for latency ratios."""
    for target in map(targets.get, names):
        if not target.capabilities.runs_here:
            continue
        name = f"{target.name}_fp32"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            exported = target.export_float(artifact, folder, "model")
            contender = Contender(name, target.name, Kind.FLOAT, exported.path, exported.size_bytes, exported)
            entered.add(contender, target.load(exported, threads))
        except Exception as exc:
            logger.exception("%s cannot be made", name)
            entered.add(Contender(name, target.name, Kind.FLOAT, error=f"{type(exc).__name__}: {exc}"))


def add_auto(entered: Field, threads: int) -> None:
    """Enter every OpenVINO model once more at the precision that the runtime prefers, if that is not float32.

    The other runtimes have no such choice. Accuracy and latency are compared at float32 throughout, but Ultralytics
    leaves the choice to OpenVINO, so its validator has to be compared with these.
    """
    loaded = _loaded(entered, "openvino")
    if not loaded or (precision := preferred_precision()) == "f32":
        return
    from yoloquant.runtime.backends import BackendOptions, open_backend

    note = f"float operations in {precision}, as OpenVINO chooses by itself, which is how Ultralytics runs these files"
    for contender, path in loaded:
        runner = open_backend(
            "openvino", path, entered.runners[contender.name].info, BackendOptions(threads, precision="")
        )
        _add_twin(entered, contender, AUTO, runner, note)


def add_fused(entered: Field, threads: int) -> None:
    """Enter every TensorRT file once more with ONNX Runtime's graph optimizations.

    Accuracy is simulated without them, so that every Q/DQ pair is computed as it stands. Ultralytics leaves them on,
    and fusing changes how some values round, so its validator has to be compared with these.
    """
    from yoloquant.runtime.backends import BackendOptions, open_backend

    note = (
        "the same file with ONNX Runtime's graph optimizations on, which is how Ultralytics runs an .onnx; they fuse "
        "Q/DQ pairs into integer kernels, which round some values another way"
    )
    for contender, path in _loaded(entered, "tensorrt"):
        runner = open_backend("onnxruntime", path, entered.runners[contender.name].info, BackendOptions(threads))
        _add_twin(entered, contender, FUSED, runner, note)


def _loaded(entered: Field, runtime: str) -> list[tuple[Contender, Path]]:
    found = (c for c in entered.contenders.values() if c.runtime == runtime and c.name in entered.runners)
    return [(c, c.path) for c in found if c.path is not None]


def _add_twin(entered: Field, contender: Contender, mark: str, runner: Runner, note: str) -> None:
    runner.layout = entered.runners[contender.name].layout
    runtime = f"{contender.runtime}{mark}"
    name = contender.name.replace(contender.runtime, runtime, 1)
    twin = replace(contender, name=name, runtime=runtime, notes=(note,), twin_of=contender.name)
    entered.add(twin, runner)


def preferred_precision() -> str:
    """Type that OpenVINO computes float operations in on this CPU unless told otherwise, for instance ``bf16``."""
    import openvino
    from openvino import opset8

    parameter = opset8.parameter([1], np.float32)
    model = openvino.Model([opset8.relu(parameter)], [parameter])
    compiled = shared_core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())


def latency_groups(entered: Field) -> Mapping[str, Mapping[str, Runner]]:
    """Runners that compete in one runtime, by runtime."""
    groups: dict[str, dict[str, Runner]] = {}
    for name, runner in entered.runners.items():
        contender = entered.contenders[name]
        if contender.runtime and contender.runs_here:
            groups.setdefault(contender.runtime, {})[name] = runner
    return groups
