"""The contract that every runtime fulfils. A new runtime is one new module in this package."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import MissingExtraError, UsageError
from ..types import ExportedModel, HeadLayout, ModelInfo, Task

if TYPE_CHECKING:
    from ..quantization.artifact import Artifact
    from ..quantization.scheme import Scheme


@dataclass(frozen=True)
class Capabilities:
    """What a runtime can do with numbers.

    Attributes:
        symmetric_only: Whether every zero_point must be 0.
        per_channel_weights: Whether convolution weights may have one scale per output channel.
        tasks: Tasks that it exports.
        devices: Names that people use for devices which run it.
        runs_here: Whether artifacts run on the machine that builds them (TensorRT's are simulated instead).
        channel_multiple: Pruned layers keep a multiple of so many channels, or they get slower instead of faster.
    """

    symmetric_only: bool = False
    per_channel_weights: bool = True
    tasks: tuple[Task, ...] = (Task.DETECT,)
    devices: tuple[str, ...] = ()
    runs_here: bool = True
    channel_multiple: int = 8


class Runner(ABC):
    """A loaded artifact.

    Attributes:
        info: The model's description.
        layout: Layout of what ``__call__`` returns; raw-head artifacts are decoded by their runner, so this is
            DECODED or END2END.
    """

    info: ModelInfo
    layout: HeadLayout

    @abstractmethod
    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network alone (this is what latency measures).

        Args:
            image: float32 NCHW (1, channels, height, width), RGB, 0 to 1, letterboxed.

        Returns:
            The artifact's own outputs as float32 arrays.
        """

    def decode(self, outputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Turn the artifact's own outputs into the drop-in layout; the identity unless the head is raw."""
        return outputs

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Infer and decode: (1, 4 + nc, anchors) xywh and scores, or (1, max_det, 6) for end-to-end heads."""
        return self.decode(self.infer(image))

    def close(self) -> None:  # noqa: B027 - most runners hold nothing that needs closing
        """Free what the runtime holds."""


class Target(ABC):
    """A runtime that artifacts are exported to.

    Attributes:
        name: Unique name, as used on the command line.
        extra: The extra that installs what it needs.
        requires: Modules that building needs.
        runs_with: Modules that running the artifact here needs.
        scheme: The rules by which this runtime wants quantization placed.
        suffix: File suffix, or folder suffix, that Ultralytics recognises.
        capabilities: What it can do.
    """

    name: ClassVar[str]
    extra: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    runs_with: ClassVar[tuple[str, ...]] = ()
    scheme: ClassVar[Scheme]
    suffix: ClassVar[str]
    capabilities: ClassVar[Capabilities] = Capabilities()

    @classmethod
    def variant(cls, name: str) -> Target:
        """The target as people ask for it behind a colon, for instance ``uint8`` in ``coral:uint8``.

        Raises:
            UsageError: There is no such variant.
        """
        raise UsageError(f"target '{cls.name}' has no variants, so ':{name}' must be left out")

    @property
    def wanted(self) -> str:
        """What ``targets.get`` takes to give this very target: its name, and its variant if it is one."""
        return self.name

    @classmethod
    def missing(cls) -> tuple[str, ...]:
        """Modules that are not installed; importing nothing."""
        return tuple(m for m in (*cls.requires, *cls.runs_with) if importlib.util.find_spec(m) is None)

    @classmethod
    def require(cls) -> None:
        """Raise MissingExtraError unless everything this target needs is installed."""
        for module in cls.missing():
            raise MissingExtraError(cls.name, cls.extra, module)

    @abstractmethod
    def check(self, artifact: Artifact) -> None:
        """Raise PlanError or TargetError if the artifact cannot be exported; called before any work starts."""

    @abstractmethod
    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write the artifact into a folder (atomically) and describe it."""

    @abstractmethod
    def export_float(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write the float model for the same runtime, which latency is compared with; ``precision`` is ``fp32``."""

    @abstractmethod
    def load(self, exported: ExportedModel, threads: int | None = None) -> Runner:
        """Load an artifact for inference on this machine."""

    def layer_times(
        self, exported: ExportedModel, image: np.ndarray, threads: int | None = None
    ) -> Mapping[str, float]:
        """Milliseconds of every layer of a float artifact, where the runtime can tell.

        Args:
            exported: A float artifact of this target.
            image: float32 NCHW (1, channels, height, width).
            threads: Threads of one inference; None uses every core.

        Returns:
            By the name of the layer's weight; empty where the runtime has no profiler that Python reaches.
        """
        return {}

    @abstractmethod
    def read_scales(self, exported: ExportedModel) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Scale and zero_point of every point as the artifact holds them (int8 convention), by point name."""
