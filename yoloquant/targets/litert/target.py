"""The LiteRT target: a drop-in ``.tflite``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import PlanError
from ...io import atomic_path
from ...types import ExportedModel, HeadLayout, Task
from ..base import DYNAMIC, FLOAT, FP16, FP32, INT8, W8A16, WEIGHTS, WEIGHTS_ALONE, Capabilities, Target, tag
from .devices import ANDROID, RASPBERRY_PI
from .scheme import SCHEME

if TYPE_CHECKING:
    from ...graph.trace import Graph
    from ...quantization.artifact import Artifact
    from ...quantization.plan import Plan
    from ...quantization.scheme import Scheme
    from ...runtime.backends import Backend, BackendOptions
    from ..base import Device
    from .build import ConvertedModel, Variant

_SHOWN = 4

NOTES = {
    FP16: ("stored in float16; a CPU computes in float32 (measured here), the GPU delegate in float16",),
    DYNAMIC: ("activations are quantized while the network runs; weights by each channel's largest value",),
    W8A16: (
        "XNNPACK takes no 16-bit activations (ai-edge-litert 2.3); its own kernels take tens of times as long as int8",
    ),
    WEIGHTS: ("LiteRT multiplies the weights out when it loads them: a smaller file, no faster",),
}


class LiteRTTarget(Target):
    """A ``.tflite`` with an integer body between a float input and a float decode tail.

    It is a drop-in: ``ultralytics.YOLO(path)`` loads it for predict and val, in the layout of Ultralytics' own LiteRT
    exports (NCHW input, boxes as fractions of the image).
    """

    name: ClassVar[str] = "litert"
    extra: ClassVar[str] = "litert"
    requires: ClassVar[tuple[str, ...]] = ("litert_torch",)
    runs_with: ClassVar[tuple[str, ...]] = ("ai_edge_litert",)
    scheme: ClassVar[Scheme] = SCHEME
    suffix: ClassVar[str] = ".tflite"
    backend: ClassVar[str] = "litert"
    devices: ClassVar[tuple[Device, ...]] = (RASPBERRY_PI, ANDROID)
    variants: ClassVar[Mapping[str, str]] = {
        INT8: "int8 weights and activations",
        FP32: "the float model",
        FP16: "stored in float16; GPUs compute in it, CPUs in float32",
        W8A16: "int8 weights, int16 activations",
        DYNAMIC: "int8 weights, int8 activations with ranges found anew in every image",
        WEIGHTS: "int8 weights, computed in float32",
    }
    box_unit: ClassVar[str] = "fractions of the input"
    # No float layers: the converter wants a pair at every float tensor (`qdq.carry`).
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=tuple(Task), float_layers=False)
    raw: ClassVar[bool] = False
    input_type: ClassVar[str] = "float32"

    def check(self, artifact: Artifact) -> None:
        """Raise unless the model can be converted and its plan placed as LiteRT needs it.

        Raises:
            MissingExtraError: A package is missing.
            TargetError: The task is not supported.
            PlanError: There is no plan, it leaves layers in float, a computed tensor is divided by another, or the head
                is not one that can be cut into levels.
        """
        self.require()
        self.require_task(artifact.info.task)
        # Inside methods throughout: it imports torch, which listing targets must not.
        from ...graph.head_levels import head_levels

        plan = self.plan(artifact)
        if plan is not None:
            self.check_layers(plan)
        self.check_graph(artifact.graph)
        head_levels(artifact.graph)

    def check_layers(self, plan: Plan) -> None:
        """See ``Target.check_layers``; layers in float are refused too."""
        if plan.float_layers:
            raise PlanError(
                f"target '{self.name}' computes in integers throughout, and plan '{plan.scheme}' leaves "
                f"{', '.join(plan.float_layers[:_SHOWN])} in float; quantize without float_layers=, or export to a "
                "runtime that mixes both (onnxruntime, openvino, tensorrt, executorch)"
            )
        super().check_layers(plan)

    def check_graph(self, graph: Graph) -> None:
        """Raise PlanError if a computed tensor is divided by another; files that compute in float are not concerned."""
        from ...graph.trace import computed_divisors

        divided = [] if self.precision in FLOAT | WEIGHTS_ALONE else computed_divisors(graph)
        if divided:
            raise PlanError(
                f"{self.name}: LiteRT's int8 division of two computed tensors gives the far end of its range where the "
                f"numerator is next to zero (ai-edge-litert 2.3.0), and none has 16 bits: {divided[0]} divides so "
                f"({len(divided)} in all); export litert:fp32 or litert:dynamic, or to onnxruntime or openvino"
            )

    @property
    def file_stem(self) -> str:
        """What follows the model's name in the name of the integer file."""
        return self.name

    def plan(self, artifact: Artifact) -> Plan | None:
        """The plan of an integer file; the others round weights by themselves."""
        from .wide import widen

        if self.precision not in {INT8, W8A16}:
            return None
        plan = artifact.plan_for(self.scheme)
        if self.precision == INT8:
            return plan
        self.check_layers(plan)  # ranges of single 16-bit layers cannot be widened again
        return widen(plan)

    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Convert, prove that the body is integer and the scales are the plan's, and write the file.

        Raises:
            TargetError: The conversion failed or its result is not what the plan asks for.
            OutputError: The folder cannot be written.
        """
        # Again, for callers that did not ask before.
        self.check(artifact)
        plan = self.plan(artifact)
        if plan is None:
            return self._export_float(artifact, self.precision, folder, stem)
        from .build import build
        from .metadata import pack

        built = build(artifact.graph, plan, self._variant(), bias=artifact.bias_for(self.scheme))
        content = pack(built.content, self._host(artifact), self._own_metadata(artifact, plan, built))
        path = _write(folder / f"{stem}-{self.file_stem}{tag(self.precision)}{self.suffix}", content)
        return ExportedModel(
            target=self.name,
            path=path,
            info=artifact.info,
            layout=HeadLayout.RAW if self.raw else artifact.info.layout,
            drop_in=not self.raw,
            precision=self.precision,
            scheme=plan.scheme,
            size_bytes=path.stat().st_size,
            metadata={**artifact.metadata(), "operators": built.operators, "requantize": built.requantize},
            notes=(*plan.notes, *NOTES.get(self.precision, ()), *self._notes(built)),
        )

    def export_float(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write the float model as a drop-in ``.tflite``.

        Raises:
            TargetError: The conversion failed.
            OutputError: The folder cannot be written.
        """
        self.require()
        return self._export_float(artifact, FP32, folder, stem)

    def _export_float(self, artifact: Artifact, precision: str, folder: Path, stem: str) -> ExportedModel:
        from .build import build_float
        from .float_weights import compress_weights
        from .metadata import pack

        content, notes = build_float(artifact.graph), NOTES.get(precision, ())
        if precision != FP32:
            content, _ = compress_weights(content, precision)
        bits = {FP32: 32, FP16: 16}.get(precision, 8)
        # Without a plan `read_scales` knows that there is nothing to read back.
        packed = pack(content, host_metadata(artifact, bits=bits), {**artifact.metadata(), "plan": None})
        path = _write(folder / f"{stem}-{self.name}-{precision}{self.suffix}", packed)
        return ExportedModel(
            target=self.name,
            path=path,
            info=artifact.info,
            layout=artifact.info.layout,
            precision=precision,
            size_bytes=path.stat().st_size,
            metadata=artifact.metadata(),
            notes=notes,
        )

    def open(self, exported: ExportedModel, options: BackendOptions) -> Backend:
        """Load an artifact into the LiteRT interpreter.

        Raises:
            MissingExtraError: The runtime is not installed.
            ArtifactError: The file is missing or does not fit its description.
            TargetError: The interpreter refuses it.
        """
        self.require_runtime()
        return super().open(exported, options)

    @classmethod
    def require_runtime(cls) -> None:
        """Raise MissingExtraError unless artifacts can run here; building needs more."""
        from ...errors import MissingExtraError

        for module in cls.missing():
            if module in cls.runs_with:
                raise MissingExtraError(cls.name, cls.extra, module)

    def read_scales(self, exported: ExportedModel) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Scale and zero_point of every point, read from the file's tensors.

        Raises:
            ArtifactError: The file was not written by this project or was changed.
            TargetError: A point has no integer tensor in it.
        """
        self.require_runtime()
        from ...quantization.plan import Plan
        from .build import read_points
        from .flatbuffer import Flatbuffer
        from .metadata import read

        own, flatbuffer = read(exported.path)
        if not own.get("plan"):
            return {}
        plan = Plan.from_dict(own["plan"])
        return read_points(Flatbuffer(flatbuffer), plan.points, own["tensors"])

    def _variant(self) -> Variant:
        from .build import Variant

        return Variant(self.raw, self.input_type)

    def _host(self, artifact: Artifact) -> dict[str, Any]:
        return host_metadata(artifact, bits=W8A16 if self.precision == W8A16 else 8)

    def _own_metadata(self, artifact: Artifact, plan: Plan, built: ConvertedModel) -> dict[str, Any]:
        from ..export_metadata import provenance_json

        layout = "raw" if self.raw else artifact.info.layout.value
        shape = {"target": self.name, "layout": layout, "strides": list(artifact.info.strides)}
        return {**json.loads(provenance_json(artifact, plan)), **shape, "tensors": built.tensors}

    def _notes(self, built: ConvertedModel) -> tuple[str, ...]:
        notes = []
        if built.requantize:
            notes.append(f"{built.requantize} operators only change a scale; tie their ranges to save them")
        return tuple(notes)


def host_metadata(artifact: Artifact, *, bits: int | str = 8) -> dict[str, Any]:
    """The keys that Ultralytics reads from a ``.tflite`` of so many bits, or of ``w8a16`` as it calls them too."""
    from ..export_metadata import ultralytics_metadata

    data = ultralytics_metadata(artifact)
    # Any head but RTDETRDecoder: Ultralytics 8.4.190 leaves only that one's boxes unscaled.
    return {**data, "args": {**data["args"], "quantize": bits}, "head": "Detect"}


def _write(path: Path, content: bytes) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path
