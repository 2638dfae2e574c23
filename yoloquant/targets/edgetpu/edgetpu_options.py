"""How files for an Edge TPU are made; light enough to be imported with the target."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import UsageError

INPUT_TYPES = ("int8", "uint8")
REWRITTEN = "yoloquant_rewritten"
"""Attribute of a host model that says, in sentences for people, what was replaced in it before quantization."""


@dataclass(frozen=True)
class CompilerOptions:
    """How ``edgetpu_compiler`` is run, see https://coral.ai/docs/edgetpu/compiler/#usage.

    Attributes:
        enabled: Run it where it is installed.
        multiple_subgraphs: Map what lies behind unmapped operators too (experimental, ``-a``). Every change of sides
            costs a transfer, so the result can be slower.
        search_step: If a partition cannot be compiled, try again with so many operators less; 0 gives up at once.
        try_seconds: The compiler's own time limit for each try.
        timeout_seconds: Time limit for the whole run.
    """

    enabled: bool = True
    multiple_subgraphs: bool = False
    search_step: int = 10
    try_seconds: int = 180
    timeout_seconds: float = 1800.0

    def __post_init__(self) -> None:
        if self.search_step < 0 or self.try_seconds < 1 or self.timeout_seconds <= 0:
            raise UsageError(
                f"got search_step={self.search_step}, try_seconds={self.try_seconds} and timeout_seconds="
                f"{self.timeout_seconds}; allowed are a step of 0 or more, and times above 0"
            )


@dataclass(frozen=True)
class EdgeTPUOptions:
    """Options of the ``edgetpu`` target.

    Attributes:
        input_type: ``int8``, or ``uint8`` with a quantize operator in front, so that images need no conversion.
        compiler: How the compiler is run.
    """

    input_type: str = "int8"
    compiler: CompilerOptions = field(default_factory=CompilerOptions)

    def __post_init__(self) -> None:
        if self.input_type not in INPUT_TYPES:
            raise UsageError(f"input_type='{self.input_type}' is not supported; allowed are {', '.join(INPUT_TYPES)}")
