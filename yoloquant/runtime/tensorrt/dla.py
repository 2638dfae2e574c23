"""Engines for a Jetson's deep learning accelerator (TensorRT up to 10; TensorRT 11 has no DLA).

A DLA takes no Q/DQ pairs. It gets the plain model and a calibration cache with the range of every tensor; what it
cannot run falls back to the GPU, silently unless somebody asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, TargetError
from . import calibration_cache
from .api import TensorRT

_PLACED = re.compile(r"\[(?P<device>Dla|Gpu)Layer\]\s*(?P<name>.*)$")


@dataclass(frozen=True)
class DlaReport:
    """Where the layers of a network go.

    Attributes:
        core: DLA core.
        on_dla: Names of network layers that the DLA can run.
        fallback: Those that it cannot, with their kind, which run on the GPU.
        placed: What the builder said about the finished engine, line by line: ``DLA: ...`` and ``GPU: ...``.
    """

    core: int
    on_dla: tuple[str, ...]
    fallback: tuple[tuple[str, str], ...]
    placed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Sentences for people; they name every layer that falls back."""
        total = len(self.on_dla) + len(self.fallback)
        text = f"DLA core {self.core} can run {len(self.on_dla)} of {total} layers"
        if self.fallback:
            text += "; on the GPU: " + ", ".join(f"{name} ({kind})" for name, kind in self.fallback)
        regions = sum(line.startswith("DLA") for line in self.placed)
        return f"{text}; in the engine: {regions} DLA regions" if self.placed else text


def calibrator(api: TensorRT, cache: Path) -> Any:
    """A calibrator that has no images, only a finished cache.

    Every release wants the base class's ``__init__`` called (TensorRT Python API, ``IInt8EntropyCalibrator2``). A DLA
    takes no other algorithm than this one.

    Raises:
        ArtifactError: The cache is missing or damaged.
    """
    try:
        content = calibration_cache.retag(cache.read_text(encoding="utf-8"), api.numbers)
    except (OSError, UnicodeDecodeError) as exc:
        raise ArtifactError(f"the calibration cache '{cache}' cannot be read ({exc}); export again") from exc
    trt = api.module

    base: Any = trt.IInt8EntropyCalibrator2

    class CachedCalibrator(base):  # type: ignore[misc]  # an untyped binding
        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Any) -> None:
            return None  # nothing to calibrate with: if TensorRT asks, it did not take the cache

        def read_calibration_cache(self) -> bytes:
            return content

        def write_calibration_cache(self, cache: Any) -> None:
            return None

    return CachedCalibrator()


def configure(api: TensorRT, builder: Any, config: Any, core: int, cache: Path) -> Any:
    """Make a DLA the default device and give the calibration cache.

    Returns:
        The calibrator, which must live as long as the build.

    Raises:
        TargetError: This release or this device has no such DLA.
        ArtifactError: The cache is missing or damaged.
    """
    trt = api.module
    if api.strongly_typed:
        raise TargetError(
            f"TensorRT {api.version} does not support DLAs; leave out dla=, or use TensorRT 10 (JetPack 6)"
        )
    cores = int(builder.num_DLA_cores)
    if core >= cores:
        have = f"cores 0 to {cores - 1}" if cores else "no DLA"
        raise TargetError(f"dla={core} was asked for, but this device has {have}; leave out dla= to build for the GPU")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    # Without it a single layer that the DLA lacks ends the build.
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    chosen = calibrator(api, cache)
    config.int8_calibrator = chosen
    return chosen


def survey(config: Any, network: Any, core: int) -> DlaReport:
    """Ask for every layer of a parsed network whether the DLA can run it."""
    on_dla: list[str] = []
    fallback: list[tuple[str, str]] = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if config.can_run_on_DLA(layer):
            on_dla.append(str(layer.name))
        else:
            fallback.append((str(layer.name), str(getattr(layer.type, "name", layer.type))))
    return DlaReport(core, tuple(on_dla), tuple(fallback))


def placements(log: Iterable[str]) -> tuple[str, ...]:
    """The builder's own list of what runs where, from its log."""
    found = (_PLACED.search(line) for line in log)
    return tuple(f"{match['device'].upper()}: {match['name'].strip()}" for match in found if match)
