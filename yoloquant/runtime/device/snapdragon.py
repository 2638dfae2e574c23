"""Qualcomm's chips by the names that people use, and where their NPU is simulated.

The numbers are Qualcomm's own (``QNN_SOC_MODEL_*``), as its code in ExecuTorch 1.5.1 states them together with what the
chips are sold as (``backends/qualcomm/serialization/qc_schema.py`` and ``utils/utils.py``). Chips whose number or name
has no such source are left out.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

from ..errors import UsageError

LEAST_GLIBC = (2, 35)
"""What the wheels of onnxruntime-qnn for x86-64 are built for."""
WHERE = "Linux on x86-64 with glibc 2.35 or newer (Ubuntu 22.04, Debian 12)"


@dataclass(frozen=True)
class Soc:
    """A chip.

    Attributes:
        name: What people type.
        title: What it is sold as.
        chip: Qualcomm's part number.
        model: Qualcomm's number of it, as QNN takes it.
    """

    name: str
    title: str
    chip: str
    model: int


SOCS = {
    soc.name: soc
    for soc in (
        Soc("8gen2", "Snapdragon 8 Gen 2", "SM8550", 43),
        Soc("8gen1", "Snapdragon 8 Gen 1", "SM8450", 36),
        Soc("8plus-gen1", "Snapdragon 8+ Gen 1", "SM8475", 42),
        Soc("8gen3", "Snapdragon 8 Gen 3", "SM8650", 57),
        Soc("8elite", "Snapdragon 8 Elite", "SM8750", 69),
        Soc("8elite-gen5", "Snapdragon 8 Elite Gen 5", "SM8850", 87),
    )
}
"""The first one is simulated where none is named."""


def find_soc(name: str) -> Soc:
    """Find a chip by its name or part number; the usual one if the name is empty.

    Raises:
        UsageError: There is none of that name.
    """
    plain = _plain(name).replace("snapdragon", "")
    if not plain:
        return next(iter(SOCS.values()))
    for soc in SOCS.values():
        if plain in (_plain(soc.name), _plain(soc.chip)):
            return soc
    raise UsageError(f"there is no Snapdragon '{name}'; allowed are {', '.join(SOCS)}")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def is_simulated() -> bool:
    """Whether this machine has no such NPU, by its processor."""
    return platform.machine().lower() not in ("aarch64", "arm64")


def why_not_here() -> str:
    """Why neither the compiler nor the simulator of the NPU can run on this machine; empty if they can."""
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine.lower() not in ("x86_64", "amd64"):
        return f"Qualcomm's compiler and NPU simulator need {WHERE}; this is {platform.system()} on {machine}"
    library, version = platform.libc_ver()
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if library == "glibc" and found >= LEAST_GLIBC:
        return ""
    has = f"{library} {version}" if library else "no glibc"
    return f"Qualcomm's compiler and NPU simulator need {WHERE}; this machine has {has}"
