"""Run Arm's compiler, and read what it made.

Vela (package ``ethos-u-vela``, Apache-2.0) replaces what an NPU runs by operators of type CUSTOM, and writes its
estimates as one line of CSV. It is run in a process of its own, because it keeps its settings in globals.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import TargetError
from ..litert.flatbuffer import Flatbuffer
from .accelerators import Accelerator

SECONDS = 1800.0
_NPU = "CUSTOM"
_SHOWN = 5


@dataclass(frozen=True)
class VelaReport:
    """What Vela says of a network.

    Attributes:
        accelerator: The accelerator that it was compiled for.
        operators: Operators of the network.
        on_cpu: Kind and name of every operator that stays on the CPU.
        sram_kib: SRAM in use, in KiB.
        dram_kib: DRAM in use, in KiB.
        flash_kib: Flash in use, in KiB.
        cycles: Estimated cycles of the accelerator for one image.
        clock_mhz: Clock that the estimate assumes, in MHz.
    """

    accelerator: str
    operators: int
    on_cpu: tuple[tuple[str, str], ...]
    sram_kib: float
    dram_kib: float
    flash_kib: float
    cycles: int
    clock_mhz: float

    @property
    def milliseconds(self) -> float:
        """Estimated time of one image."""
        # Cycles by MHz are microseconds.
        return self.cycles / self.clock_mhz / 1e3

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "on_cpu": [list(pair) for pair in self.on_cpu]}

    def summary(self) -> tuple[str, ...]:
        """The same in sentences."""
        mapped = self.operators - len(self.on_cpu)
        memory = f"SRAM {self.sram_kib:.0f} KiB, DRAM {self.dram_kib:.0f} KiB, flash {self.flash_kib:.0f} KiB"
        return (
            f"{mapped} of {self.operators} operators run on an Ethos-{self.accelerator.upper()}; {memory}",
            f"Vela estimates {self.cycles / 1e6:.2f} million cycles an image, {self.milliseconds:.1f} ms at "
            f"{self.clock_mhz:g} MHz; accuracy is measured with LiteRT's kernels on this machine",
        )


@dataclass(frozen=True, eq=False)
class CompiledNetwork:
    """A compiled network.

    Attributes:
        content: The flatbuffer for the device.
        report: What Vela says of it.
    """

    content: bytes
    report: VelaReport


def compile_for(accelerator: Accelerator, content: bytes, *, seconds: float = SECONDS) -> CompiledNetwork:
    """Compile an integer ``.tflite``.

    Args:
        accelerator: What for.
        content: The flatbuffer, without anything appended.
        seconds: Time limit.

    Raises:
        TargetError: Vela failed, or leaves operators on the CPU; the message names them.
    """
    network = run_vela(accelerator, content, seconds=seconds)
    if network.report.on_cpu:
        few = ", ".join(f"{kind} ({name})" for kind, name in network.report.on_cpu[:_SHOWN])
        raise TargetError(
            f"{len(network.report.on_cpu)} operators stay on the CPU of an Ethos-{accelerator.name.upper()}: {few}; "
            "replace attention by convolutions first (prepare the model with 'attention'), or choose another "
            "accelerator"
        )
    return network


def run_vela(accelerator: Accelerator, content: bytes, *, seconds: float = SECONDS) -> CompiledNetwork:
    """The same, whatever stays on the CPU.

    Raises:
        TargetError: Vela failed.
    """
    with tempfile.TemporaryDirectory(prefix="yoloquant-vela-") as name:
        folder = Path(name)
        # A name of our own, since Vela calls its results after the file.
        source = folder / "model.tflite"
        source.write_bytes(content)
        _run([*accelerator.arguments, "--output-dir", str(folder), str(source)], folder, seconds)
        compiled, summary = folder / "model_vela.tflite", next(folder.glob("model_summary_*.csv"), None)
        if not compiled.is_file() or summary is None:
            raise TargetError("Vela reported success but wrote no network; this release of ethos-u-vela is not known")
        result = compiled.read_bytes()
        with summary.open(newline="", encoding="utf-8") as lines:
            row = list(csv.DictReader(lines))[-1]
    return CompiledNetwork(result, read_report(accelerator, len(Flatbuffer(content).ops), result, row))


def read_report(accelerator: Accelerator, operators: int, compiled: bytes, row: dict[str, str]) -> VelaReport:
    """Put together what the compiled network and Vela's summary say.

    Args:
        accelerator: What it was compiled for.
        operators: Operators of the network before.
        compiled: The network after.
        row: The summary by column.
    """
    file = Flatbuffer(compiled)
    left = tuple((op.kind, file.tensors[op.outputs[0]].name) for op in file.ops if op.kind != _NPU)
    flash = float(row["on_chip_flash_memory_used"]) + float(row["off_chip_flash_memory_used"])
    return VelaReport(
        accelerator=accelerator.name,
        operators=operators,
        on_cpu=left,
        sram_kib=float(row["sram_memory_used"]),
        dram_kib=float(row["dram_memory_used"]),
        flash_kib=flash,
        cycles=int(float(row["cycles_total"])),
        clock_mhz=float(row["core_clock"]) / 1e6,
    )


def _run(arguments: list[str], folder: Path, seconds: float) -> None:
    line = [sys.executable, "-m", "ethosu.vela", *arguments]
    try:
        done = subprocess.run(
            line, cwd=folder, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise TargetError(f"Vela did not finish within {seconds:g} s; choose a smaller imgsz") from exc
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-500:]
        raise TargetError(f"Vela could not compile the network (exit {done.returncode}): {said}")
