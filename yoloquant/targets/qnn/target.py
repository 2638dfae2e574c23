"""The Snapdragon target: Q/DQ ONNX with raw heads, and beside it the form that is compiled for a named chip."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import TargetError, UsageError
from ...io import atomic_path
from ...runtime.backends.qnn import compiled_path
from ...runtime.device.snapdragon import SOCS, Soc, find_soc, is_simulated, why_not_here
from ...types import ExportedModel, HeadLayout, Task
from ..base import FP16, FP32, INT8, W8A16, Capabilities, Device, Requirement, Target, tag
from ..onnx.emission import Emission, Weights
from .scheme import SCHEME

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...quantization.artifact import Artifact
    from ...quantization.plan import Plan
    from ...quantization.scheme import Scheme
    from ...runtime.backends import Backend, BackendOptions

KEY = "qnn"
"""Where the compiler's report is in ``ExportedModel.metadata``."""
EMISSION = Emission(unsigned=True, weights=Weights.INT8, int32_bias=True)
_GUIDE = Path(__file__).with_name("snapdragon.md.j2")
_SIMULATED = "accuracy is that of Qualcomm's simulator of the NPU on this machine; latency is only known on the device"


_PAIRWISE = (
    "accuracy is computed pair by pair by ONNX Runtime: the NPU's simulator (onnxruntime-qnn 2.7) gives other 16-bit "
    "results for the same image from run to run; latency is only known on the device"
)


class QnnTarget(Target):
    """A Q/DQ ``.onnx`` whose whole graph runs on a Snapdragon's NPU and returns raw heads, decoded on the host.

    For a named chip, ``<name>_qnn.onnx`` beside it holds the compiled network (a QNN context binary). Plain Ultralytics
    cannot read either, since it expects decoded outputs.

    Args:
        soc: The chip; None if the device compiles by itself, and the simulator takes the usual one.
    """

    name: ClassVar[str] = "qnn"
    extra: ClassVar[str] = "qnn"
    requires: ClassVar[tuple[str, ...]] = ("onnxruntime_qnn", "onnx", "onnxscript")
    runs_with: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    scheme: ClassVar[Scheme] = SCHEME
    suffix: ClassVar[str] = ".onnx"
    backend: ClassVar[str] = "qnn"
    devices: ClassVar[tuple[Device, ...]] = (
        Device(
            "snapdragon",
            "Qualcomm Snapdragon (NPU)",
            (Requirement("onnxruntime_qnn", "onnxruntime-qnn", "2.7.0"),),
            guide=_GUIDE,
        ),
    )
    variants: ClassVar[Mapping[str, str]] = {
        INT8: "int8 weights, uint8 activations; the device compiles it",
        FP32: "the float model",
        W8A16: "int8 weights, uint16 activations",
        **{soc.name: f"int8, also compiled for a {soc.title} ({soc.chip})" for soc in SOCS.values()},
        **{f"{soc.name}-{W8A16}": f"uint16 activations, for a {soc.title}" for soc in SOCS.values()},
    }
    in_all: ClassVar[bool] = False  # the simulator takes seconds an image
    capabilities: ClassVar[Capabilities] = Capabilities(
        # keypoints have a scale for each of their values, which the NPU knows for weights alone
        tasks=(Task.DETECT, Task.SEGMENT, Task.OBB, Task.CLASSIFY),
        runs_here=False,
        timed_here=False,
        # the NPU's float is float16
        layer_precisions=(FP16, W8A16),
    )

    def __init__(self, soc: Soc | None = None) -> None:
        self.soc = soc

    @classmethod
    def variant(cls, name: str) -> QnnTarget:
        """A precision, or a chip such as ``8gen3``.

        Raises:
            UsageError: There is no such variant.
        """
        chip, wide = (name.removesuffix(f"-{W8A16}"), name.endswith(W8A16)) if name != W8A16 else ("", True)
        try:
            target = cls() if name in (INT8, FP32, W8A16) else cls(find_soc(chip))
        except UsageError as exc:
            raise UsageError(
                f"target '{cls.name}' has no variant '{name}'; allowed are {', '.join(cls.variants)}"
            ) from exc
        target.precision = FP32 if name == FP32 else W8A16 if wide else INT8
        return target

    @property
    def wanted(self) -> str:
        """See ``Target.wanted``."""
        if self.soc is None:
            return super().wanted
        return f"{self.name}:{self.soc.name}{tag(self.precision)}"

    def plan(self, artifact: Artifact) -> Plan | None:
        """See ``Target.plan``."""
        from .wide import widen

        plan = super().plan(artifact)
        return widen(plan) if plan and self.precision == W8A16 else plan

    @classmethod
    def require(cls) -> None:
        """Raise unless Qualcomm's compiler and everything else is there.

        Raises:
            TargetError: It does not run on this machine.
            MissingExtraError: A package is missing.
        """
        # first: on another machine no package would help
        if reason := why_not_here():
            raise TargetError(reason)
        super().require()

    def check(self, artifact: Artifact) -> None:
        """Raise unless the model can be exported.

        Raises:
            MissingExtraError: A package is missing.
            TargetError: The task is not supported, or the compiler does not run on this machine.
            PlanError: There is no plan, it has more than 8 bits, or the head cannot be cut into levels.
        """
        from ...graph.head_levels import head_levels

        self.require()
        self.require_task(artifact.info.task)
        if self.precision == W8A16:
            self.plan(artifact)
        else:
            self.int8_plan(artifact)
        head_levels(artifact.graph)

    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write the ``.onnx``, have it compiled, and for a named chip keep what the compiler made.

        Raises:
            TargetError: The compiler refuses the network or crashed; nothing is left behind then.
            OutputError: The folder cannot be written.
        """
        from ...graph.head_levels import head_levels
        from ..onnx.emit import emit
        from ..onnxruntime import onnx_metadata, write_onnx
        from .compile import compile_for_soc
        from .constants import quantize_scalars
        from .wide import to_wide_opset
        from .widths import unify_widths

        self.check(artifact)
        plan = self.plan(artifact)
        if plan is None:
            return self.export_float(artifact, folder, stem)
        pairwise = any(point.spec.bits > 8 for point in plan.points)
        bits = 16 if self.precision == W8A16 else 8
        rewrites: list[Callable[[ir.Model], Any]] = [partial(quantize_scalars, bits=bits)]
        if pairwise:
            rewrites += [unify_widths, to_wide_opset]
        model = emit(
            artifact.graph,
            plan,
            EMISSION,
            metadata=onnx_metadata(artifact, plan),
            bias=artifact.bias_for(self.scheme),
            rewrites=rewrites,
            ends=head_levels(artifact.graph),
        )
        chip = f"-{self.soc.name}" if self.soc else ""
        path = folder / f"{stem}-{self.name}{chip}{tag(self.precision)}.onnx"
        notes = (_PAIRWISE if pairwise else _SIMULATED,)
        exported = write_onnx(model, artifact, path, target=self.name, plan=plan, precision=self.precision, notes=notes)
        try:
            compiled = compile_for_soc(exported.path, self.simulated)
            facts = {**compiled.report.to_dict(), "pairwise": pairwise}
            if self.soc:
                with atomic_path(compiled_path(exported.path)) as temporary:
                    temporary.write_bytes(compiled.content)
                facts["compiled"] = compiled_path(exported.path).name
        except BaseException:
            exported.path.unlink(missing_ok=True)
            raise
        return replace(
            exported,
            layout=HeadLayout.RAW,
            drop_in=False,
            metadata={**exported.metadata, KEY: facts},
            notes=(*exported.notes, compiled.report.summary()),
        )

    @property
    def simulated(self) -> Soc:
        """The chip that is simulated here."""
        return self.soc or find_soc("")

    def export_float(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write ``<stem>-qnn-fp32.onnx``, which ONNX Runtime runs on a CPU: the NPU has no float32."""
        from ..onnx.dfl import decode_along_last_axis
        from ..onnx.emit import emit
        from ..onnxruntime import onnx_metadata, write_onnx

        self.require()
        model = emit(
            artifact.graph,
            None,
            EMISSION,
            metadata=onnx_metadata(artifact, None),
            rewrites=[decode_along_last_axis],
        )
        return write_onnx(model, artifact, folder / f"{stem}-{self.name}-fp32.onnx", target=self.name)

    def open(self, exported: ExportedModel, options: BackendOptions) -> Backend:
        """Load an artifact into the simulator of the chip that it was exported for; others into ONNX Runtime."""
        from ...runtime.backends import open_backend

        if exported.precision == FP32:
            return open_backend("onnxruntime", exported.path, exported.info, options)
        known = exported.metadata.get(KEY, {})
        # exports of earlier releases say it by their precision alone
        if exported.precision == W8A16 or known.get("pairwise"):
            from .pairwise import PairwiseBackend

            return PairwiseBackend(exported.path, exported.info, options)
        device = options.device or str(known.get("soc", ""))

        def start() -> Backend:
            return open_backend("qnn", exported.path, exported.info, replace(options, device=device))

        if not is_simulated() or not exported.path.is_file() or exported.layout is not HeadLayout.RAW:
            return start()
        if self.store is None:
            return start()
        from .kept_simulations import RecalledBackend, simulation_key

        return RecalledBackend(start, self.store, simulation_key(exported.path, find_soc(device).model), exported.info)

    def add_companions(self, model: Path, artifact: Artifact, exported: ExportedModel) -> tuple[str, ...]:
        """The compiled form."""
        name = exported.metadata.get(KEY, {}).get("compiled")
        if name:
            shutil.copyfile(exported.path.with_name(Path(name).name), compiled_path(model))
        return ()

    def read_scales(self, exported: ExportedModel) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Scale and zero_point of every point from the file's Q/DQ nodes."""
        import onnx

        from ..onnx.read_scales import read_scales
        from ..onnxruntime import recorded_points

        model = onnx.load(exported.path)
        return read_scales(model, recorded_points(model))
