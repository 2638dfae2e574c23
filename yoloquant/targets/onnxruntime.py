"""ONNX Runtime on CPUs: Q/DQ ONNX that its optimizer turns into integer kernels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ArtifactError
from ..graph.ops import OpKind
from ..io import atomic_path
from ..quantization.keypoint_ranges import mixed_heads
from ..quantization.plan import Plan
from ..quantization.scheme import Placement, Scheme, complete
from ..types import ExportedModel, Task
from .base import DYNAMIC, FP32, INT8, WEIGHTS, Capabilities, Device, Requirement, Target, tag
from .export_metadata import provenance_json, ultralytics_metadata
from .graph_form import BATCH, NMS, PLAIN, GraphForm
from .graph_form import DYNAMIC as DYNAMIC_BATCH
from .layer_times import onnxruntime_times
from .onnx.dfl import decode_along_last_axis
from .onnx.emission import Emission, Weights, graph_rewrites
from .onnx.emit import emit
from .onnx.pads import keep_zero_pads
from .onnx.read_scales import read_scales

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from ..graph.trace import Graph, OpNode
    from ..quantization.artifact import Artifact

# All three are what its kernels take: signed activations are slower than float here, and a bias in float stays outside
# of the fused convolution.
EMISSION = Emission(unsigned=True, weights=Weights.INT8, int32_bias=True)
NOTES = {
    DYNAMIC: ("activations are quantized while the network runs: no calibration, and a pass over each of them",),
    WEIGHTS: ("ONNX Runtime multiplies the weights out again and computes in float32: a smaller file, no faster",),
}


def place(graph: Graph) -> Placement:
    """A pair at every operand and every result, because a kernel is only replaced if it stands between pairs.

    Between query, key and value and the result of an attention nothing is quantized: its integer kernels are slower
    than the float ones (yolo11n: 3 % of the whole time) and its softmax is coarse.

    The head's last convolutions are integer as well: a pair behind them is what makes them so, and rounds the raw
    boxes. Box branches in float would win 0.0044 [0.0006, 0.0084] of fidelity and score branches nothing (yolo11n at
    640, 128 COCO val2017 images, simulated, 0.963 as it is; ``tools/compare_heads.py``), for some 4 % more time.
    Keypoints are the exception, see ``quantization.keypoint_ranges``, and a classifier's logits: a linear layer has a
    kernel from integers to float.
    """
    placed = complete(graph, repeat=True)
    # one tensor has one scale here, and coordinates must not share theirs with visibilities: these results stay float
    floats = _attention(graph) | set(mixed_heads(graph)) | _logits(graph)
    return Placement(
        tuple((site, why) for site, why in placed.sites if graph.root(site.tensor) not in floats),
        placed.ties,
        placed.weighted,
    )


def _logits(graph: Graph) -> set[str]:
    """A classifier's raw result."""
    return {op.name for op in graph.heads if op.kind is OpKind.LINEAR}


def _attention(graph: Graph) -> set[str]:
    """Softmaxes, the product in front of each, and the scaling of that product's operands."""
    inner: set[str] = set()
    for op in graph.body():
        product = graph.ops[graph.root(op.inputs[0])] if op.inputs else op
        if op.kind is OpKind.UNIT and product.kind in {OpKind.MATMUL, OpKind.MUL} and not _is_gate(graph, op):
            inner |= {op.name, product.name} | _scaled(graph, product)
            inner |= {name for operand in _scaled(graph, product) for name in _scaled(graph, graph.ops[operand])}
    return inner


def _is_gate(graph: Graph, unit: OpNode) -> bool:
    """Whether a result in 0..1 is multiplied elementwise, as in SiLU."""
    return any(graph.ops[user].kind is OpKind.MUL for user in graph.users[unit.name])


def _scaled(graph: Graph, product: OpNode) -> set[str]:
    """Operands of a product that are themselves a product, for instance query times its constant factor."""
    roots = {graph.root(name) for name in product.inputs}
    return {name for name in roots if graph.ops[name].kind in {OpKind.MUL, OpKind.MATMUL}}


SCHEME = Scheme(
    name="onnxruntime",
    place=place,
    sums_in_16_bits=True,
    description="uint8 around every operation but the inside of attention, int8 weights per channel",
)


class OnnxRuntimeTarget(Target):
    """An ``.onnx`` for ONNX Runtime's CPU provider."""

    name: ClassVar[str] = "onnxruntime"
    extra: ClassVar[str] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript")
    runs_with: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    scheme: ClassVar[Scheme] = SCHEME
    suffix: ClassVar[str] = ".onnx"
    backend: ClassVar[str] = "onnxruntime"
    # the lowest version in which a bundle of yolo11n was seen to verify (x86-64, Python 3.11)
    devices: ClassVar[tuple[Device, ...]] = (
        Device(
            "onnx",
            "Any CPU (ONNX Runtime)",
            (Requirement("onnxruntime", "onnxruntime", "1.15.0"),),
            aliases=("cpu",),
        ),
    )
    variants: ClassVar[Mapping[str, str]] = {
        INT8: "int8 weights, uint8 activations",
        FP32: "the float model",
        DYNAMIC: "int8 weights, uint8 activations with ranges found anew in every image",
        WEIGHTS: "int8 weights, computed in float32",
    }
    capabilities: ClassVar[Capabilities] = Capabilities(
        tasks=tuple(Task), profiled=True, graph=(NMS, BATCH, DYNAMIC_BATCH)
    )

    def check(self, artifact: Artifact) -> None:
        """Raise PlanError if the artifact lacks ranges, MissingExtraError if a package is missing."""
        self.require()
        self.int8_plan(artifact)
        if self.graph.nms:
            self.graph.check(artifact.info, self.name)

    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write ``<stem>-onnxruntime.onnx``, or ``<stem>-onnxruntime-<precision>.onnx``."""
        self.check(artifact)
        return self._write(artifact, self.precision, folder, stem)

    def export_float(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write ``<stem>-onnxruntime-fp32.onnx``."""
        self.require()
        return self._write(artifact, FP32, folder, stem)

    def _write(self, artifact: Artifact, precision: str, folder: Path, stem: str) -> ExportedModel:
        plan = None if precision == FP32 else self.plan(artifact)
        metadata = onnx_metadata(artifact, plan, self.graph)
        bias = artifact.bias_for(self.scheme) if plan else None
        rewrites: list[Callable[[ir.Model], int]] = [decode_along_last_axis, keep_zero_pads]
        if precision == DYNAMIC:
            from .onnx.dynamic import to_dynamic

            rewrites.append(to_dynamic)
        rewrites += graph_rewrites(self.graph, artifact.info)
        model = emit(artifact.graph, plan, EMISSION, metadata=metadata, bias=bias, rewrites=rewrites)
        path = folder / f"{stem}-{self.name}{tag(precision)}{self.graph.tag}.onnx"
        notes = (*NOTES.get(precision, ()), *self.graph.notes(artifact.info))
        return write_onnx(
            model, artifact, path, target=self.name, plan=plan, precision=precision, notes=notes, graph=self.graph
        )

    def layer_times(
        self, exported: ExportedModel, image: np.ndarray, threads: int | None = None
    ) -> Mapping[str, float]:
        """Milliseconds of every layer; see ``layer_times.onnxruntime_times``."""
        return onnxruntime_times(exported.path, image, threads)

    def read_scales(self, exported: ExportedModel) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Scale and zero_point of every point from the file's Q/DQ nodes."""
        import onnx

        model = onnx.load(exported.path)
        return read_scales(model, recorded_points(model))


def onnx_metadata(artifact: Artifact, plan: Plan | None, graph: GraphForm = PLAIN) -> dict[str, str]:
    """``metadata_props`` as Ultralytics reads them (Python literals), and the provenance under ``yoloquant``."""
    known = {k: str(v) for k, v in ultralytics_metadata(artifact, graph).items()}
    return {**known, "yoloquant": provenance_json(artifact, plan)}


def recorded_points(model: onnx.ModelProto) -> list[str]:
    """Names of the points in the plan that a model carries; empty for a float model.

    Raises:
        ArtifactError: It carries nothing of this project.
    """
    properties = {p.key: p.value for p in model.metadata_props}
    try:
        plan = json.loads(properties["yoloquant"])["plan"]
        return [str(p["name"]) for p in plan["points"]] if plan else []
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtifactError(f"the ONNX model carries no plan of yoloquant ({exc!r}); export it again") from exc


def write_onnx(
    model: onnx.ModelProto,
    artifact: Artifact,
    path: Path,
    *,
    target: str,
    plan: Plan | None = None,
    precision: str = "",
    notes: tuple[str, ...] = (),
    graph: GraphForm = PLAIN,
) -> ExportedModel:
    """Write an ONNX model atomically and describe it; its precision is int8 with a plan and fp32 without, if not given.

    Raises:
        OutputError: It cannot be written.
    """
    import onnx

    with atomic_path(path) as temporary:
        onnx.save(model, temporary)
    info = graph.described(artifact.info)
    return ExportedModel(
        target=target,
        path=path,
        info=info,
        layout=info.layout,
        precision=precision or (INT8 if plan else FP32),
        scheme=plan.scheme if plan else "",
        size_bytes=path.stat().st_size,
        metadata={
            **artifact.metadata(),
            **graph.to_metadata(),
            "points": [p.name for p in plan.points] if plan else [],
        },
        notes=(*(plan.notes if plan else ()), *notes),
    )
