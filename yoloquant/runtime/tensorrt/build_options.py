"""How an engine is built, and where its sources lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import UsageError

LEVELS = range(6)  # builder_optimization_level of TensorRT 8.6 and later
CHECKS = ("error", "warn", "off")


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        workspace: Memory that a layer may use while it runs, in GiB; None leaves TensorRT's default, all of it.
        dla: DLA core that runs what it can; None builds for the GPU alone.
        sparse: Whether TensorRT may use kernels for 2:4 sparse weights, where the weights are.
        fp16: Whether operations that are not quantized may run in FP16. Before TensorRT 11, whose types come from the
            model.
        level: Builder optimisation level, 0 to 5; None leaves TensorRT's own.
        timing_cache: File of kernel timings, which makes the next build faster; None keeps one beside the engines.
        check: What happens if a layer that was planned for Int8 runs in another type: ``error``, ``warn`` or ``off``.
        force: Whether to build although a fitting engine is there.
        device: CUDA device.
    """

    workspace: float | None = None
    dla: int | None = None
    sparse: bool = False
    fp16: bool = True
    level: int | None = None
    timing_cache: Path | None = None
    check: str = "error"
    force: bool = False
    device: str = ""

    def __post_init__(self) -> None:
        if self.workspace is not None and not 0 < self.workspace < 1024:
            raise UsageError(f"workspace={self.workspace} is out of range; it is in GiB, above 0, for instance 2")
        if self.dla is not None and not 0 <= self.dla < 16:
            raise UsageError(f"dla={self.dla} is no DLA core; they are counted from 0")
        if self.level is not None and self.level not in LEVELS:
            raise UsageError(f"level={self.level} is not allowed; allowed are 0 to {LEVELS[-1]}")
        if self.check not in CHECKS:
            raise UsageError(f"check={self.check} is not allowed; allowed are {', '.join(CHECKS)}")
        if self.dla is not None and not self.fp16:
            raise UsageError("a DLA runs only Int8 and FP16: leave out fp16=false or dla=")

    def engine_key(self) -> dict[str, Any]:
        """What decides which engine comes out; where files lie and what is checked does not."""
        names = ("workspace", "dla", "sparse", "fp16", "level")
        return {name: getattr(self, name) for name in names}


def parse_options(arguments: Mapping[str, str]) -> BuildOptions:
    """Options from ``key=value`` arguments.

    Raises:
        UsageError: A key is unknown, or its value is not allowed.
    """
    unknown = sorted(set(arguments) - set(_PARSERS))
    if unknown:
        raise UsageError(f"'{unknown[0]}' is no option of build_engine; there are {', '.join(sorted(_PARSERS))}")
    return BuildOptions(**{key: _PARSERS[key](key, value) for key, value in arguments.items()})


def _flag(key: str, text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise UsageError(f"{key}={text} is not allowed; allowed are true and false")
    return known[text.lower()]


def _number(convert: Callable[[str], Any]) -> Callable[[str, str], Any]:
    def parse(key: str, text: str) -> Any:
        if text.lower() in {"", "none", "auto"}:
            return None
        try:
            return convert(text)
        except ValueError:
            kind = "a whole number" if convert is int else "a number"
            raise UsageError(f"{key}={text} is not allowed; it is {kind}, or none") from None

    return parse


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "workspace": _number(float),
    "dla": _number(int),
    "level": _number(int),
    "sparse": _flag,
    "fp16": _flag,
    "force": _flag,
    "timing_cache": lambda key, text: Path(text) if text else None,
    "check": lambda key, text: text,
    "device": lambda key, text: text,
}
# A new field without a parser fails at import, and not at the first user who sets it.
assert set(_PARSERS) == {field.name for field in fields(BuildOptions)}


@dataclass(frozen=True)
class Sources:
    """The models that engines are built from; they lie side by side and share a name.

    Attributes:
        onnx: Q/DQ model of float32, for TensorRT below 11.
        strongly_typed: The same with float parts in FP16, for TensorRT 11.
        plain: Model without Q/DQ, for a DLA.
        calibration: Calibration cache with the ranges of the plain model.
    """

    onnx: Path
    strongly_typed: Path
    plain: Path
    calibration: Path

    @classmethod
    def beside(cls, onnx: Path) -> Sources:
        """All of them from the first one's path; they need not exist."""
        # These names are what export and device agree on: the one writes them, the other looks for them.
        stem = onnx.with_suffix("")
        return cls(
            onnx,
            stem.with_name(f"{stem.name}-fp16.onnx"),
            stem.with_name(f"{stem.name}-dla.onnx"),
            stem.with_name(f"{stem.name}-dla.cache"),
        )
