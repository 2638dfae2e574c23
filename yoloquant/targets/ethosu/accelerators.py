"""The accelerators that Vela compiles for, by the names that people use."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError
from ...runtime.core.nearest import closest


@dataclass(frozen=True)
class Accelerator:
    """A configuration of the NPU, in a system such as Vela's own reference has it.

    Attributes:
        name: Family and multiply-accumulate units per cycle, such as ``u55-128``.
        system: Clock and memory speeds, a section of Vela's ``Arm/vela.ini``.
        memory: Where weights and activations lie, another section of it.
    """

    name: str
    system: str
    memory: str

    @property
    def arguments(self) -> list[str]:
        """The same as Vela's command takes it."""
        system = ["--config", "Arm/vela.ini", "--system-config", self.system, "--memory-mode", self.memory]
        return ["--accelerator-config", f"ethos-{self.name}", *system]


_U55 = ("Ethos_U55_High_End_Embedded", "Shared_Sram")
_U65 = ("Ethos_U65_Client_Server", "Dedicated_Sram_384KB")
_U85 = ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB")
ACCELERATORS = {
    name: Accelerator(name, *system)
    for system, names in (
        (_U85, ("u85-512", "u85-128", "u85-256", "u85-1024", "u85-2048")),
        (_U65, ("u65-256", "u65-512")),
        (_U55, ("u55-32", "u55-64", "u55-128", "u55-256")),
    )
    for name in names
}
"""The first one is used where none is named. Systems and memories are those that Vela 5.2 takes by itself."""


def accelerator(name: str) -> Accelerator:
    """Find an accelerator; ``ethos-u55-128`` and ``u55-128`` are the same.

    Raises:
        UsageError: There is none of that name.
    """
    plain = name.strip().lower().removeprefix("ethos-").replace("_", "-")
    if plain not in ACCELERATORS:
        near = closest(plain, ACCELERATORS)
        # with the whole list also where one is near: an accelerator is looked up in it, not misspelt
        hint = f"; did you mean '{near}'? Allowed are" if near else "; allowed are"
        raise UsageError(f"there is no Ethos-U accelerator '{name}'{hint} {', '.join(ACCELERATORS)}")
    return ACCELERATORS[plain]
