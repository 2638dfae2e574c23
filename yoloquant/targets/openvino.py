"""OpenVINO on CPUs: an IR with FakeQuantize on activations and int8 weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import ArtifactError, PlanError, TargetError
from ..graph.ops import QUANTIZATION_AGNOSTIC, WEIGHTED, OpKind
from ..io import atomic_path
from ..quantization.plan import Plan
from ..quantization.qparams import QParams, QuantSpec
from ..quantization.scheme import Placement, Scheme, body_weighted, operands
from ..runtime.backends.openvino import find_xml, import_openvino, shared_core, unreported
from ..types import ExportedModel, ModelInfo, Task
from .base import FLOAT, FP16, FP32, INT8, WEIGHTS, Capabilities, Device, Requirement, Target, tag
from .export_metadata import METADATA, provenance_json, read_folder_metadata, ultralytics_metadata
from .graph_form import BATCH, DYNAMIC, NMS, GraphForm
from .layer_times import openvino_times
from .onnx.emission import Emission, Weights, graph_rewrites
from .onnx.emit import emit

if TYPE_CHECKING:
    from ..graph.trace import Graph, OpNode
    from ..quantization.artifact import Artifact


EMISSION = Emission(unsigned=True, weights=Weights.INT8)
_INTEGER = WEIGHTED | {OpKind.MATMUL, OpKind.ADD, OpKind.CONCAT}
NOTES = {
    FP16: ("stored in float16; a CPU computes in float32 (measured here), a GPU or NPU in float16",),
    WEIGHTS: (
        "OpenVINO multiplies the weights out when it loads them: a smaller file, no faster; 1x1 convolutions that read "
        "a part of a split keep float weights, which it could not load",
    ),
}

# Weights in float16 beside quantized layers would make the file smaller; OpenVINO 2026.4.1 then computes other results.
HALF_LAYERS = "layers in fp16 are stored in float32: a GPU or NPU computes in float16, a CPU in float32"


def place(graph: Graph) -> Placement:
    """Quantize what integer operations read, and nothing between a convolution and its activation.

    A concat's inputs share one range, so that its result lies on their grid and needs no point of its own.

    The head's last convolutions read quantized operands like all others: in float, box branches change fidelity by
    +0.0009 [-0.0000, +0.0020] and score branches by -0.0019 [-0.0033, -0.0002] (``tools/compare_heads.py``, yolo11n at
    640, 128 COCO val2017 images, 0.980 as it is).
    """
    placed = operands(graph, _wanted)
    joined = [_sources(graph, op) for op in graph.body() if op.kind is OpKind.CONCAT]
    ties = [(sources[0], other) for sources in joined for other in sources[1:]]
    return Placement(placed.sites, tuple(ties), body_weighted(graph))


def _wanted(graph: Graph, reader: OpNode, tensor: str) -> str:
    op = graph.ops[tensor]
    if op.kind in QUANTIZATION_AGNOSTIC or op.kind is OpKind.CONCAT:
        return ""  # already on the grid of what they move
    if reader.kind in QUANTIZATION_AGNOSTIC:
        onward = (_wanted(graph, r, tensor) for r in _readers(graph, reader))
        return next((why for why in onward if why), "")
    return f"operand of an integer {reader.kind.value}" if reader.kind in _INTEGER else ""


def _readers(graph: Graph, op: OpNode) -> Iterator[OpNode]:
    return (graph.ops[u] for u in graph.users[op.name] if not graph.ops[u].tail)


def _sources(graph: Graph, concat: OpNode) -> list[str]:
    """The computed tensors that a concat joins; those of a concat that it reads are its own too."""
    sources: list[str] = []
    for name in concat.inputs:
        root = graph.ops[graph.root(name)]
        sources += _sources(graph, root) if root.kind is OpKind.CONCAT else [root.name]
    return sources


SCHEME = Scheme(
    name="openvino",
    place=place,
    sums_in_16_bits=True,
    description="operands of convolutions, matrix products, additions and concats; int8 weights per channel",
)


def unreadable_weights(graph: Graph) -> frozenset[str]:
    """Points of 1x1 weights that OpenVINO cannot load where activations are float: those that read a part of a split.

    Its pass ConvertWeightCompressedConv1x1ToMatmul (2026.4) asks the split for its only output, and it has several.
    """
    found = set()
    for op in graph.body():
        if op.kind is not OpKind.CONV or graph.ops[op.inputs[0]].kind is not OpKind.PASS:
            continue
        part = graph.ops[op.inputs[0]]
        # what has several results has no shape
        several = any(graph.ops[source].shape is None for source in part.inputs)
        if several and graph.module.get_parameter(op.weight).shape[2:].numel() == 1:
            found.add(f"{op.module}:weight")
    return frozenset(found)


class OpenVinoTarget(Target):
    """A folder with ``.xml``, ``.bin`` and ``metadata.yaml``."""

    name: ClassVar[str] = "openvino"
    extra: ClassVar[str] = "openvino"
    requires: ClassVar[tuple[str, ...]] = ("openvino", "onnx", "onnxscript")
    scheme: ClassVar[Scheme] = SCHEME
    suffix: ClassVar[str] = "_openvino_model"
    backend: ClassVar[str] = "openvino"
    # the lowest version in which a bundle of yolo11n was seen to verify (x86-64, Python 3.11)
    devices: ClassVar[tuple[Device, ...]] = (
        Device(
            "intel",
            "Intel CPU, GPU and NPU (OpenVINO)",
            (Requirement("openvino", "openvino", "2023.1.0"),),
            guide=Path(__file__).with_name("openvino_intel.md.j2"),
        ),
    )
    variants: ClassVar[Mapping[str, str]] = {
        INT8: "int8 weights, uint8 activations",
        FP32: "the float model",
        FP16: "stored in float16; GPUs and NPUs compute in it, CPUs in float32",
        WEIGHTS: "int8 weights, computed in float",
    }
    capabilities: ClassVar[Capabilities] = Capabilities(
        tasks=tuple(Task), profiled=True, layer_precisions=(FP16,), channel_multiple=16, graph=(NMS, BATCH, DYNAMIC)
    )

    def plan(self, artifact: Artifact) -> Plan | None:
        """See ``Target.plan``; weights that OpenVINO could not load stay in float."""
        plan = super().plan(artifact)
        if plan is None or self.precision != WEIGHTS:
            return plan
        left_out = unreadable_weights(artifact.graph)
        return replace(plan, points=tuple(p for p in plan.points if p.name not in left_out))

    def check(self, artifact: Artifact) -> None:
        """Raise PlanError if the plan does not fit, MissingExtraError if OpenVINO is missing."""
        self.require()
        plan = self.int8_plan(artifact)
        if self.graph.nms:
            self.graph.check(artifact.info, self.name)
        if plan:
            self.check_graph(artifact.graph)

    def check_graph(self, graph: Graph) -> None:
        """Raise PlanError if an average pool has a padding that counts; float models are not concerned."""
        from ..graph.trace import padded_averages

        # No Ultralytics detector has one, custom models may.
        padded = padded_averages(graph) if self.precision == INT8 else []
        if padded:
            raise PlanError(
                "openvino fills the border of an average pool with code 0, which is not zero in an asymmetric "
                f"uint8 tensor (OpenVINO 2026.4): {padded[0]} has a padding that counts ({len(padded)} in all); "
                "train it with count_include_pad=False or padding=0, or export precision fp32 (openvino:fp32)"
            )

    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write ``<stem>_openvino_model/``, or ``<stem>-<precision>_openvino_model/``."""
        self.check(artifact)
        return self._write(artifact, self.precision, folder, stem)

    def export_float(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write ``<stem>-fp32_openvino_model/``."""
        self.require()
        return self._write(artifact, FP32, folder, stem)

    def _write(self, artifact: Artifact, precision: str, folder: Path, stem: str) -> ExportedModel:
        plan = self.plan(artifact) if precision not in FLOAT else None
        bias = artifact.bias_for(self.scheme) if plan else None
        rewrites = graph_rewrites(self.graph, artifact.info)
        model, info = (
            emit(artifact.graph, plan, EMISSION, bias=bias, rewrites=rewrites),
            self.graph.described(artifact.info),
        )
        stem = f"{stem}{tag(precision)}{self.graph.tag}"
        path = folder / f"{stem}{self.suffix}"
        with atomic_path(path) as temporary:
            temporary.mkdir()
            _save_ir(model, temporary / f"{stem}.xml", info, half=precision == FP16)
            _save_metadata(artifact, plan, self.graph, temporary / METADATA)
        return ExportedModel(
            target=self.name,
            path=path,
            info=info,
            layout=info.layout,
            precision=precision,
            scheme=plan.scheme if plan else "",
            size_bytes=sum(f.stat().st_size for f in path.iterdir()),
            metadata={**artifact.metadata(), **self.graph.to_metadata()},
            notes=(
                *(plan.notes if plan else ()),
                *((HALF_LAYERS,) if plan and plan.half_layers else ()),
                *NOTES.get(precision, ()),
                *self.graph.notes(artifact.info),
            ),
        )

    def layer_times(
        self, exported: ExportedModel, image: np.ndarray, threads: int | None = None
    ) -> Mapping[str, float]:
        """Milliseconds of every layer; see ``layer_times.openvino_times``."""
        return openvino_times(exported.path, image, threads)

    def read_scales(self, exported: ExportedModel) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Scale and zero_point of every point from the IR, see ``read_ir``."""
        return read_ir(exported.path)


def _save_ir(model: Any, xml: Path, info: ModelInfo, *, half: bool = False) -> None:
    import tempfile

    import onnx

    openvino = import_openvino()
    try:
        with tempfile.TemporaryDirectory() as folder, unreported():
            source = Path(folder) / "model.onnx"
            onnx.save(model, source)
            ir = openvino.convert_model(source)
        _name_weights(ir, {n.name: n.input[1] for n in model.graph.node if n.op_type == "Conv"})
        # after the weights: the numbers that it removes depend on how many models the process has converted
        _name_anonymous(ir)
        for key, value in _model_info(info).items():
            ir.set_rt_info(value, ["model_info", key])
        # never the default, which stores float constants as float16 and moves scales off their bits
        openvino.save_model(ir, xml, compress_to_fp16=half)
    except RuntimeError as exc:
        raise TargetError(f"OpenVINO cannot convert the model: {exc}") from exc


def _name_weights(ir: Any, names: Mapping[str, str]) -> None:
    """Give reshaped weights of depthwise convolutions their parameter's name back, as all others have it."""
    for operation in ir.get_ordered_ops():
        name = names.get(operation.get_friendly_name().split("/")[0])
        if name and operation.get_type_name() == "GroupConvolution":
            weight = operation.input_value(1).get_node()
            if weight.get_type_name() == "Constant":
                weight.set_friendly_name(name)


def _name_anonymous(ir: Any) -> None:
    """Give operations that OpenVINO numbered per process a name that is the same in every export."""
    for index, operation in enumerate(ir.get_ordered_ops()):
        if re.fullmatch(r"[A-Z][A-Za-z]*_\d+", operation.get_friendly_name()):
            operation.set_friendly_name(f"{operation.get_type_name()}:{index}")


def _model_info(info: ModelInfo) -> dict[str, Any]:
    """What Intel's Model API reads from an IR."""
    known: dict[str, Any] = {
        "model_type": "YOLO",
        # its images are BGR, as OpenCV reads them
        "reverse_input_channels": True,
        "pad_value": 114,
        "scale_values": [255.0],
        "labels": [name.replace(" ", "_") for name in info.names],
    }
    return known if info.task is Task.CLASSIFY else {**known, "resize_type": "fit_to_window_letterbox"}


def _save_metadata(artifact: Artifact, plan: Plan | None, graph: GraphForm, path: Path) -> None:
    import yaml

    data = {**ultralytics_metadata(artifact, graph), "yoloquant": provenance_json(artifact, plan)}
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_ir(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scale and zero_point that an IR really uses, in the int8 convention, by point name.

    Weights hold their scales as they are. A FakeQuantize holds the two ends of its range instead: ``(qmin - zero_point)
    * scale`` and ``(qmax - zero_point) * scale`` in float32. The scale is one that gives exactly these ends; where
    neighbouring floats give the same ends, and so the same quantizer, the recorded one is preferred.

    Args:
        path: The folder.

    Raises:
        TargetError: A point is missing from the IR, or its ends lie on no grid.
        ArtifactError: The folder is damaged.
    """
    core = shared_core()
    recorded = read_folder_metadata(path).get("plan")
    if not recorded:
        return {}
    plan = Plan.from_dict(recorded)
    try:
        operations = {o.get_friendly_name(): o for o in core.read_model(str(find_xml(path))).get_ops()}
    except RuntimeError as exc:
        raise ArtifactError(f"OpenVINO cannot read '{path}': {exc}") from exc
    scales: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for point in plan.weights:
        scales[point.name] = _weight_scale(_operation(operations, point.name))
    for point in plan.activations:
        values = [_activation(_operation(operations, s.tensor), point.spec, point.params) for s in point.sites]
        if any(v != values[0] for v in values):
            raise TargetError(f"the places of point {point.name} have different ranges in the IR")
        scales[point.name] = values[0].scale, values[0].zero_point
    return scales


def _operation(operations: Mapping[str, Any], place: str) -> Any:
    try:
        return operations[f"{place}/dequantize"]
    except KeyError:
        raise TargetError(f"the IR has no quantize or dequantize operation for {place}") from None


def _constant(node: Any, port: int) -> np.ndarray:
    return np.asarray(node.input_value(port).get_node().get_data())


def _weight_scale(multiply: Any) -> tuple[np.ndarray, np.ndarray]:
    convert = multiply.input_value(0).get_node()
    if convert.get_type_name() != "Convert" or convert.get_input_element_type(0).get_type_name() != "i8":
        raise TargetError(f"the weight of {multiply.get_friendly_name()} is not stored as int8")
    scale = _constant(multiply, 1).astype(np.float32)
    scale = scale.reshape(-1) if scale.ndim else scale
    return scale, np.zeros(scale.shape, np.int32)


def _activation(node: Any, spec: QuantSpec, recorded: QParams | None) -> QParams:
    name = node.get_friendly_name()
    if node.get_type_name() != "FakeQuantize" or node.get_attributes()["levels"] != spec.qmax - spec.qmin + 1:
        raise TargetError(f"{name} is not a FakeQuantize of {spec.bits} bits")
    below, above, low, high = (_constant(node, port).reshape(()).astype(np.float32) for port in range(1, 5))
    # OpenVINO folds a preceding multiplication with a constant into the input's ends; the output's are the grid
    factor = float(high - low) / float(above - below)
    if abs(float(below) * factor - float(low)) > 1e-5 * float(high - low):
        raise TargetError(f"{name} shifts its input: [{below}, {above}] becomes [{low}, {high}]")
    return grid(low, high, spec, recorded)


def grid(low: np.ndarray, high: np.ndarray, spec: QuantSpec, recorded: QParams | None = None) -> QParams:
    """Scale and zero_point whose float32 range has exactly these ends.

    Args:
        low: Lower end, float32 ().
        high: Upper end.
        spec: The representation.
        recorded: Preferred among parameters that give the same ends.

    Raises:
        TargetError: There are none.
    """
    near = np.float32((float(high) - float(low)) / (spec.qmax - spec.qmin))
    zero = np.int32(round(spec.qmin - float(low) / float(near)))
    # neighbouring floats are neighbouring integers: four to either side of the quotient, whose rounding is off by less
    steps = near.view(np.int32) + np.arange(-4, 5, dtype=np.int32)
    candidates = [QParams(s, zero) for s in steps.view(np.float32)]  # type: ignore[arg-type]
    exact = [c for c in candidates if c.range(spec) == (low, high)]
    if not exact:
        raise TargetError(f"the range [{low}, {high}] lies on no grid of {spec.bits} bits")
    return recorded if recorded is not None and recorded in exact else exact[len(exact) // 2]
