"""The TensorRT target: the ONNX form that TensorRT 8.5 to 10 share, linted, and compiled where TensorRT-RTX is.

Engines hold for one device and one TensorRT version, so one is built at once only where both are: a machine with
TensorRT and a GPU. Everywhere else the device builds it, from this file and those that ``device`` derives from it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import PlanError, TargetError, UsageError
from ...quantization.plan import Plan, PointKind
from ...quantization.scheme import Scheme
from ...types import ExportedModel, ModelInfo, Task
from ..base import FP16, FP32, INT8, Capabilities, Device, Requirement, Target
from ..graph_form import BATCH, NMS, form_of
from ..onnx.emission import Emission
from ..onnx.emit import emit
from ..onnx.read_scales import read_scales
from ..onnxruntime import onnx_metadata, write_onnx
from .scheme import SCHEME
from .sparse import with_24

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from ...quantization.artifact import Artifact
    from ...runtime.backends import Backend, BackendOptions
    from .findings import LintFinding
    from .rtx import RtxReport

logger = logging.getLogger(__name__)

EMISSION = Emission()  # int8, zero_point 0, float32 weight -> Q -> DQ
_SHOWN = 5
_SIMULATED = (
    "accuracy is simulated in ONNX Runtime with its optimisations off, from the very Q/DQ pairs that TensorRT reads; "
    "latency here says nothing about TensorRT: build the engine on the device"
)
_PLUGIN = (
    "the graph ends in TensorRT's plugin EfficientNMS_TRT (num_detections, detection_boxes, detection_scores, "
    "detection_classes): TensorRT alone runs it; here ONNX's NonMaxSuppression stands in for it, and TensorRT-RTX, "
    "which has no plugins, compiles the graph in front of it"
)
_HALF = "typed in float16 up to the head's last convolutions, float32 behind: build it strongly typed"


class TensorRTTarget(Target):
    """A Q/DQ ``.onnx`` from which an int8 engine is built on the device.

    Args:
        compile_check: Whether to compile the file with TensorRT-RTX, where that is installed (seconds), and to record
            which planned convolutions it runs in Int8.
        engine: Whether to build the engine too, where TensorRT and a GPU are (minutes).
    """

    name: ClassVar[str] = "tensorrt"
    extra: ClassVar[str] = "tensorrt"
    requires: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript")
    runs_with: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    scheme: ClassVar[Scheme] = SCHEME
    suffix: ClassVar[str] = ".onnx"
    backend: ClassVar[str] = "tensorrt"
    devices: ClassVar[tuple[Device, ...]] = (
        Device(
            "jetson",
            "NVIDIA Jetson (TensorRT)",
            (Requirement("tensorrt", "tensorrt", "8.5.0"),),  # JetPack 5's, which brings it
            ("pycuda>=2022.1",),
            Path(__file__).with_name("jetson.md.j2"),
        ),
    )
    variants: ClassVar[Mapping[str, str]] = {
        INT8: "int8 weights and activations, the rest as the engine is built",
        FP32: "the float model",
        FP16: "typed in float16, for strongly typed engines",
    }
    capabilities: ClassVar[Capabilities] = Capabilities(
        tasks=tuple(Task),
        runs_here=False,
        timed_here=False,
        # an engine's float layers compute in it, before TensorRT 11 by the builder's flag, then by the file's types
        layer_precisions=(FP16,),
        graph=(NMS, BATCH),
        channel_multiple=16,
    )

    def __init__(self, *, compile_check: bool = True, engine: bool = True) -> None:
        self.compile_check, self.engine = compile_check, engine

    def check(self, artifact: Artifact) -> None:
        """Raise unless TensorRT can represent every range that the artifact's plan gives it.

        Raises:
            MissingExtraError: A package is missing.
            PlanError: There is no plan, ranges are missing, or some cannot be represented in symmetric int8.
        """
        self.require()
        if self.graph.nms:
            self._check_selection(artifact.info)
        plan = self.plan(artifact)
        if plan is None:
            return
        _require_symmetric(plan)
        odd = [
            p.name
            for p in plan.points
            if p.spec.bits != 8 or p.spec.axis not in ((None, 0) if p.kind is PointKind.WEIGHT else (None,))
        ]
        if odd:
            raise PlanError(
                f"TensorRT takes 8 bits, one scale per activation and one per output channel of a weight; plan "
                f"'{plan.scheme}' has {len(odd)} other points, first {odd[0]}"
            )

    def _check_selection(self, info: ModelInfo) -> None:
        """Raise UsageError if the plugin cannot select what a model finds."""
        from ...runtime.tasks import spec_of

        self.graph.check(info, self.name)
        if spec_of(info.task).behind:
            raise UsageError(
                "nms=true: TensorRT's EfficientNMS plugin returns boxes, scores and classes alone, and results of the "
                f"task {info.task.value} are more than that; leave nms= out"
            )

    def tools(self) -> Mapping[str, str]:
        """The device and release that an engine is built for; empty where none is built."""
        if not self._builds_engine:
            return {}
        from .device import engine_identity

        return engine_identity()

    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write ``<stem>-tensorrt.onnx``, and ``<stem>-tensorrt.engine`` where TensorRT and a GPU are.

        Raises:
            TargetError: A lint rule is broken, or TensorRT-RTX cannot parse the model; nothing is written then. Or
                TensorRT built an engine in which planned convolutions do not run in Int8, or none at all.
        """
        self.check(artifact)
        plan = self.plan(artifact)
        if plan is None:
            return self._write_float(artifact, self.precision, folder, stem)
        metadata = onnx_metadata(artifact, plan, self.graph)
        bias = artifact.bias_for(self.scheme)
        model = emit(artifact.graph, plan, EMISSION, metadata=metadata, bias=bias, rewrites=self._of_batch())
        planned = planned_convs(plan)
        # Both before anything is written: a model that TensorRT refuses leaves no file behind.
        compiled = self._compile(model, planned)
        model = self._selecting(model, artifact)
        warnings = _lint(model, planned)
        path = folder / f"{stem}-{self.name}{self.graph.tag}.onnx"
        exported = write_onnx(model, artifact, path, target=self.name, plan=plan, graph=self.graph)
        remarks = [f"{w.rule} {w.node}: {w.message}" for w in warnings]
        results = {
            "planned_convs": list(planned),
            "lint": {"errors": 0, "warnings": remarks},
            "tensorrt_rtx": compiled,
        }
        exported = replace(
            exported,
            metadata={**exported.metadata, **results},
            notes=(
                *exported.notes,
                _SIMULATED,
                *self._graph_notes(artifact),
                compiled["summary"],
                *(f"lint: {r}" for r in remarks),
            ),
            drop_in=not self.graph.nms,
        )
        return self._with_engine(with_24(exported, artifact))

    def export_float(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write ``<stem>-tensorrt-fp32.onnx``, from which a float engine is built."""
        self.require()
        return self._write_float(artifact, FP32, folder, stem)

    def _write_float(self, artifact: Artifact, precision: str, folder: Path, stem: str) -> ExportedModel:
        metadata = onnx_metadata(artifact, None, self.graph)
        model = emit(artifact.graph, None, EMISSION, metadata=metadata, rewrites=self._of_batch())
        model = self._selecting(model, artifact)
        if precision == FP16:
            from .half import to_half

            model = to_half(model)
        path = folder / f"{stem}-{self.name}-{precision}{self.graph.tag}.onnx"
        notes = (_SIMULATED, *(() if precision == FP32 else (_HALF,)), *self._graph_notes(artifact))
        exported = write_onnx(
            model, artifact, path, target=self.name, precision=precision, notes=notes, graph=self.graph
        )
        return replace(exported, drop_in=not self.graph.nms)

    def _selecting(self, model: onnx.ModelProto, artifact: Artifact) -> onnx.ModelProto:
        """A model with the plugin that selects detections, if it was asked for."""
        if not self.graph.nms:
            return model
        import onnx_ir as ir

        from ..onnx.emit import checked
        from .efficient_nms import selecting_on_device

        made = ir.from_proto(model)
        selecting_on_device(self.graph.described(artifact.info), self.graph.selection)(made)
        return checked(made)

    def _graph_notes(self, artifact: Artifact) -> tuple[str, ...]:
        several = (self._profile(artifact.info),) if self.graph.several else ()
        return (*self.graph.notes(artifact.info), *several, *((_PLUGIN,) if self.graph.nms else ()))

    def _of_batch(self) -> list[Callable[[ir.Model], Any]]:
        if not self.graph.several:
            return []
        from ..onnx.batch import with_batch

        return [with_batch(self.graph.batch)]

    def _profile(self, info: ModelInfo) -> str:
        """What ``trtexec`` needs for a batch, which bundles and their builder do not serve."""
        shape = "x".join(map(str, (self.graph.batch, info.channels, *info.imgsz)))
        return (
            f"input images:{shape} is fixed, so that trtexec needs no optimization profile (the one it has is "
            f"--minShapes=images:{shape} --optShapes=images:{shape} --maxShapes=images:{shape}); no engine is built "
            "here"
        )

    def open(self, exported: ExportedModel, options: BackendOptions) -> Backend:
        """Simulate an artifact: every Q/DQ pair is computed as it stands by ONNX Runtime, nothing is fused."""
        from ...runtime.backends import open_backend

        options = replace(options, optimize=False)
        if not form_of(exported).nms:
            return open_backend("onnxruntime", exported.path, exported.info, options)
        import onnx

        from .efficient_nms import simulated

        with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
            path = Path(scratch, exported.path.name)
            onnx.save(simulated(onnx.load(exported.path)), path)
            return open_backend("onnxruntime", path, exported.info, options)

    def runnable(self, exported: ExportedModel) -> Path | None:
        """The engine, if one was built here; its own header tells whether it is whole and for this device."""
        engine = exported.metadata.get("engine")
        return exported.path.with_name(Path(engine["path"]).name) if engine else None

    def add_companions(self, model: Path, artifact: Artifact, exported: ExportedModel) -> tuple[str, ...]:
        """The models for TensorRT 11 and for a DLA, and the engine if one was built here."""
        from .device import add_companions

        return add_companions(model, artifact, exported)

    def read_scales(self, exported: ExportedModel) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Scale and zero_point of every point from the file's Q/DQ nodes."""
        import onnx

        return read_scales(onnx.load(exported.path), exported.metadata["points"])

    @property
    def _builds_engine(self) -> bool:
        return self.engine and not self.graph.several

    def _with_engine(self, exported: ExportedModel) -> ExportedModel:
        if not self._builds_engine:
            return exported
        from .device import build_here

        engine, note = build_here(exported)
        logger.info("%s", note)
        metadata = {**exported.metadata, "engine": engine} if engine else exported.metadata
        return replace(exported, metadata=metadata, notes=(*exported.notes, note))

    def _compile(self, model: onnx.ModelProto, planned: tuple[str, ...]) -> dict[str, Any]:
        """What TensorRT-RTX made of the model, as plain data."""
        if not self.compile_check:
            return {"available": False, "summary": "not compiled with TensorRT-RTX, as asked"}
        import onnx

        from .rtx import build_check, is_available

        if not is_available():
            return {"available": False, "summary": "not compiled: TensorRT-RTX (module tensorrt_rtx) is not installed"}
        with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
            # The compiler reads a file, and the real one is not written yet.
            path = Path(scratch, "model.onnx")
            onnx.save(model, path)
            report = build_check(path, planned_convs=planned)
        # This is the parser of the TensorRT family: what it refuses, a device's refuses, too.
        if report.parser_errors:
            raise TargetError(f"the exported model breaks TensorRT's parser: {report.summary()}")
        if not report.ok:
            # No error: TensorRT-RTX is evidence for TensorRT, and not the compiler that builds the engine.
            logger.warning("%s", report.summary())
        return _plain(report)


def planned_convs(plan: Plan) -> tuple[str, ...]:
    """Names of the ONNX nodes that are meant to run in Int8: those whose weight the plan quantizes."""
    return tuple(p.name.removesuffix(":weight") for p in plan.weights)


def _require_symmetric(plan: Plan) -> None:
    shifted = [p.name for p in plan.points if p.params is not None and p.params.zero_point.any()]
    if shifted:
        raise PlanError(
            f"TensorRT takes symmetric int8 only (zero_point 0); {len(shifted)} of {len(plan.points)} points have "
            f"another zero_point, first {shifted[0]}; quantize with scheme=tensorrt or scheme=portable"
        )


def _lint(model: onnx.ModelProto, planned: tuple[str, ...]) -> tuple[LintFinding, ...]:
    """Raise TargetError if the model breaks a rule; return the warnings."""
    from .lint import errors, lint

    findings = lint(model, planned_convs=planned)
    broken = errors(findings)
    if broken:
        shown = "; ".join(f"{f.rule} {f.node}: {f.message} (fix: {f.fix})" for f in broken[:_SHOWN])
        more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise TargetError(f"the exported model breaks {len(broken)} rules of TensorRT: {shown}{more}")
    return findings


def _plain(report: RtxReport) -> dict[str, Any]:
    return {
        "available": report.available,
        "version": report.version,
        "built": report.built,
        "int8_convs": len(report.int8_convs),
        "float_convs": list(report.float_convs),
        "unseen_convs": list(report.unseen_convs),
        "summary": report.summary(),
    }
