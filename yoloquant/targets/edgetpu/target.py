"""The Edge TPU target: a ``.tflite`` in pure integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...types import ExportedModel, Task
from ..base import Capabilities, Device, Preparation
from ..litert.devices import LIBRARIES, WHEELS
from ..litert.target import LiteRTTarget, host_metadata
from .edgetpu_options import REWRITTEN, EdgeTPUOptions

if TYPE_CHECKING:
    from ...quantization.artifact import Artifact
    from ..litert.build import Variant


class EdgeTPUTarget(LiteRTTarget):
    """A ``.tflite`` in which every operator and both ends are integers, for accelerators.

    It takes an int8 NHWC image (uint8 on request) and returns one tensor per branch and level of the head (and the
    prototypes of masks, the logits of a classifier); its runner decodes them on the host. Plain Ultralytics cannot
    read such outputs. Every export carries the static operator check, and where ``edgetpu_compiler`` is installed the
    compiled file stands beside it as ``<name>_edgetpu.tflite``.

    Args:
        options: Input type, and how the compiler is run.
    """

    name: ClassVar[str] = "edgetpu"
    devices: ClassVar[tuple[Device, ...]] = (
        Device("coral", "Coral Edge TPU (LiteRT)", LIBRARIES, WHEELS, Path(__file__).with_name("coral.md.j2")),
    )
    variants: ClassVar[Mapping[str, str]] = {
        "int8": "int8 input",
        "uint8": "uint8 input, so that images need no conversion",
    }
    preparations: ClassVar[tuple[Preparation, ...]] = (
        Preparation(
            "attention",
            "replaces self-attention, which an Edge TPU cannot run, by convolutions fitted to training images",
            "yoloquant.targets.edgetpu.fit_attention:fit_attention",
        ),
    )
    # No float layers: the first one would end the partition that runs on the TPU.
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=tuple(Task), timed_here=False, float_layers=False)
    box_unit: ClassVar[str] = "pixels of the input"
    raw: ClassVar[bool] = True

    def __init__(self, options: EdgeTPUOptions | None = None) -> None:
        self.options = options or EdgeTPUOptions()

    @classmethod
    def variant(cls, name: str) -> EdgeTPUTarget:
        """``int8`` or ``uint8``: the type of the input."""
        return cls(EdgeTPUOptions(input_type=name))

    @property
    def wanted(self) -> str:
        """See ``Target.wanted``."""
        default = EdgeTPUOptions().input_type
        return self.name if self.options.input_type == default else f"{self.name}:{self.options.input_type}"

    def tools(self) -> Mapping[str, str]:
        """The compiler, by its file: asking it for its version would take longer."""
        from .compiler import find_compiler

        found = find_compiler()
        stat = Path(found).stat() if found else None
        return {"compiler": f"{found} {stat.st_size} {stat.st_mtime_ns}" if stat else ""}

    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Convert as LiteRT, check every operator, and compile where the compiler exists.

        A compiler that fails does not fail the export: the file runs on the host, and the notes say what happened.

        Raises:
            TargetError: The conversion failed or its result is not what the plan asks for.
            OutputError: The folder cannot be written.
        """
        from .companions import accompany

        exported = super().export(artifact, folder, stem)
        # What `fit_attention` left in the checkpoint: nobody else could say that the model is not the original.
        rewritten = tuple(getattr(artifact.model.module, REWRITTEN, ()))
        host = host_metadata(artifact)
        return accompany(replace(exported, notes=(*rewritten, *exported.notes)), host, self.options)

    def add_companions(self, model: Path, artifact: Artifact, exported: ExportedModel) -> tuple[str, ...]:
        """The compiled form if there is one, and the list of what runs where."""
        from .companions import add_companions

        return add_companions(model, exported)

    def _variant(self) -> Variant:
        from ..litert.build import Variant

        return Variant(self.raw, self.options.input_type)
