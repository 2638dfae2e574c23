"""The Ethos-U target: the integer ``.tflite``, and beside it the form that Vela compiled for one accelerator."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...io import atomic_path
from ...types import ExportedModel
from ..base import Device, Preparation
from ..edgetpu.target import EdgeTPUTarget
from ..litert.devices import LIBRARIES, WHEELS
from ..litert.target import LiteRTTarget, host_metadata
from .accelerators import ACCELERATORS, Accelerator, accelerator

if TYPE_CHECKING:
    from ...quantization.artifact import Artifact
    from ..litert.build import Variant

KEY = "ethosu"
"""Where the report is in ``ExportedModel.metadata``."""
_GUIDE = Path(__file__).with_name("ethosu.md.j2")


class EthosUTarget(LiteRTTarget):
    """A ``.tflite`` in which every operator and both ends are integers, compiled for an Arm Ethos-U.

    The artifact is what this machine can run, with the same integers; ``<name>_vela.tflite`` beside it is for the
    device. A network of which operators would stay on the CPU is refused, and they are named.

    Args:
        chosen: The accelerator; the first one that is known if None.
    """

    name: ClassVar[str] = "ethosu"
    extra: ClassVar[str] = "ethosu"
    requires: ClassVar[tuple[str, ...]] = ("ethosu", "litert_torch")
    devices: ClassVar[tuple[Device, ...]] = (
        Device("ethos-u", "Arm Ethos-U (LiteRT for Microcontrollers)", LIBRARIES, WHEELS, _GUIDE),
        Device("imx93", "NXP i.MX 93 (Ethos-U65)", LIBRARIES, WHEELS, _GUIDE, variant="u65-256"),
    )
    variants: ClassVar[Mapping[str, str]] = {a.name: f"Ethos-{a.name.upper()}" for a in ACCELERATORS.values()}
    preparations: ClassVar[tuple[Preparation, ...]] = EdgeTPUTarget.preparations
    in_all: ClassVar[bool] = False  # the file is for one accelerator alone
    box_unit: ClassVar[str] = "pixels of the input"
    raw: ClassVar[bool] = True

    def __init__(self, chosen: Accelerator | None = None) -> None:
        self.accelerator = chosen or next(iter(ACCELERATORS.values()))

    @classmethod
    def variant(cls, name: str) -> EthosUTarget:
        """The accelerator, such as ``u55-128``."""
        return cls(accelerator(name))

    @property
    def wanted(self) -> str:
        """See ``Target.wanted``."""
        default = self.accelerator.name == next(iter(ACCELERATORS))
        return self.name if default else f"{self.name}:{self.accelerator.name}"

    @property
    def file_stem(self) -> str:
        """See ``LiteRTTarget.file_stem``; files for several accelerators lie in one folder."""
        return f"{self.name}-{self.accelerator.name}"

    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Convert as LiteRT, and compile.

        Raises:
            TargetError: The conversion failed, Vela failed, or operators stay on the CPU; nothing is left behind then.
            OutputError: The folder cannot be written.
        """
        from ..litert.metadata import pack, read
        from .vela import compile_for

        exported = super().export(artifact, folder, stem)
        try:
            own, flatbuffer = read(exported.path)
            compiled = compile_for(self.accelerator, flatbuffer)
            # Indices of tensors hold for the file before Vela alone.
            kept = {key: value for key, value in own.items() if key != "tensors"}
            with atomic_path(compiled_path(exported.path)) as temporary:
                temporary.write_bytes(pack(compiled.content, host_metadata(artifact), {**kept, "compiled": "vela"}))
        # The integer file alone would look like a finished export.
        except BaseException:
            exported.path.unlink(missing_ok=True)
            raise
        facts = {**compiled.report.to_dict(), "compiled": compiled_path(exported.path).name}
        notes = (*exported.notes, *compiled.report.summary())
        return replace(exported, metadata={**exported.metadata, KEY: facts}, notes=notes)

    def add_companions(self, model: Path, artifact: Artifact, exported: ExportedModel) -> tuple[str, ...]:
        """The compiled form."""
        name = Path(exported.metadata[KEY]["compiled"]).name
        shutil.copyfile(exported.path.with_name(name), model.with_name(name))
        return ()

    def _variant(self) -> Variant:
        from ..litert.build import Variant

        return Variant(self.raw, "int8")


def compiled_path(path: Path) -> Path:
    """Where the compiled form of a file is put."""
    return path.with_name(f"{path.stem}_vela{path.suffix}")
