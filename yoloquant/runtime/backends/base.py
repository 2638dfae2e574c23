"""The contract of a runtime on a device. Its library is imported when a network is opened.

A backend is a ``Runner`` for whoever has a prepared image; ``Detector`` fills its input directly and saves the copies.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..core.decode import quantize
from ..core.runner import Runner

if TYPE_CHECKING:
    from ..core.bundle_manifest import BundleManifest


@dataclass(frozen=True)
class BackendOptions:
    """How a network is run. A backend leaves aside what does not concern it.

    Attributes:
        threads: Threads of one inference; None uses every core.
        device: Which device of the runtime, for instance ``GPU`` for OpenVINO or ``0`` for TensorRT; empty for its
            usual one.
        hint: ``latency`` or ``throughput``: what OpenVINO tunes itself for.
        raw: Whether the outputs are the head's raw levels.
        precision: What OpenVINO computes float operations in (``f32``, ``f16``, ``bf16``); empty lets it choose, which
            is bfloat16 on CPUs that have it.
        optimize: Whether the runtime may use its fast integer kernels. Without it other correct kernels compute the
            same grid: ONNX Runtime and OpenVINO every pair one by one in float, LiteRT its own kernels instead of
            XNNPACK's, which round ties up instead of to even. That simulates any runtime that follows the grid, and
            shows how far two correct ones may differ.
        exact_sums: Whether ONNX Runtime must add products exactly on x86 processors without VNNI, where its fastest
            kernels clamp pairs of them to 16 bits. Without it a file does what it does in anybody else's program.
    """

    threads: int | None = None
    device: str = ""
    hint: str = "latency"
    raw: bool = False
    precision: str = "f32"
    optimize: bool = True
    exact_sums: bool = True


@dataclass(frozen=True)
class Build:
    """What a backend built on a device from a bundle.

    Attributes:
        ok: Whether it is what the bundle's plan asks for.
        message: The same for people.
        facts: Where it is, and whether it is new.
    """

    ok: bool
    message: str
    facts: dict[str, Any] = field(default_factory=dict)


class Backend(Runner):
    """A loaded network of one runtime: ``Class(path, info, options)``.

    Attributes:
        name: Name of the backend.
        info: The model that it holds.
        layout: Layout of what ``decode`` returns: DECODED or END2END.
        input_shape: Shape of the input: (1, channels, height, width), or (1, height, width, channels).
        input_dtype: float32, float16, int8 or uint8.
        input_quantization: Scale and zero_point of an integer input; None for a float one.
        reuses_outputs: Whether ``run`` returns the same buffers every time.
        untimed: Why its time says nothing of the device that it stands for; empty if it does.
        batch: Images that the network itself takes at a time; ``run`` fills fewer up with empty ones.
        any_cpu: Whether it computes on a CPU of any kind, so that other processors than this one can be judged.
        without_vnni: Environment variables by which its kernels do without VNNI; None if they take no such limit.
    """

    name: str
    input_shape: tuple[int, ...]
    input_dtype: np.dtype
    input_quantization: tuple[float, int] | None = None
    # The careful default: a copy too many costs time, one too few results.
    reuses_outputs: bool = True
    untimed: str = ""
    batch: int = 1
    any_cpu: ClassVar[bool] = False
    without_vnni: ClassVar[Mapping[str, str] | None] = None
    _room: np.ndarray | None = None

    @classmethod
    def on_cpu(cls, path: Path, device: str) -> bool:
        """Whether a network would run on the processor, where several side by side can share the cores.

        Args:
            path: What would be loaded.
            device: As in ``BackendOptions``.
        """
        # The careful answer: several networks are put side by side only where a backend says that they share the cores.
        return False

    @classmethod
    def form(cls, path: Path, device: str) -> Path:
        """Which of several files a device loads, where a compiler put another form of the model beside it.

        Args:
            path: The model as it was exported.
            device: As in ``BackendOptions``.
        """
        return path

    @classmethod
    def build(cls, folder: Path, manifest: BundleManifest, device: str) -> Build | None:
        """Build what a bundle's model needs on this device before it runs; None if it runs as it is.

        Args:
            folder: The bundle.
            manifest: Its manifest.
            device: As in ``BackendOptions``.

        Raises:
            TargetError: It cannot be built.
        """
        return None

    @property
    def channels_last(self) -> bool:
        """Whether the input is (1, height, width, channels)."""
        return self.input_shape == (1, *self.info.imgsz, self.info.channels)

    def new_input(self) -> np.ndarray:
        """Zeroed memory for an input, from which ``run`` takes it with as few copies as the runtime allows."""
        return np.zeros(self.input_shape, self.input_dtype)

    @abstractmethod
    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network alone (this is what latency measures).

        Args:
            tensor: An image of the input's shape and type, C-contiguous: RGB, 0 to 1, letterboxed, quantized for an
                integer input.

        Returns:
            The network's own outputs as float32. They may lie in buffers of the backend and then hold until the next
            call; copy what must live longer.

        Raises:
            TargetError: The runtime failed.
        """

    def filled(self, tensor: np.ndarray) -> np.ndarray:
        """A tensor with as many images as the network takes: itself, or a buffer that holds until the next call."""
        if len(tensor) >= self.batch:
            return tensor
        if self._room is None:
            self._room = np.zeros((self.batch, *tensor.shape[1:]), tensor.dtype)
        self._room[: len(tensor)] = tensor
        return self._room

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network on an image, made into what its input takes; see ``Runner.infer``."""
        if self.input_quantization is not None:
            image = quantize(image, *self.input_quantization, dtype=self.input_dtype)
        image = image.transpose(0, 2, 3, 1) if self.channels_last else image
        # A transposed view is not contiguous, and runtimes read the memory behind an array without its strides.
        outputs = self.run(np.ascontiguousarray(image, dtype=self.input_dtype))
        # The caller of `infer` may keep them (see `Runner`), that of `run` may not: latency is measured without copies.
        return tuple(o.copy() for o in outputs) if self.reuses_outputs else outputs

    def decode(self, outputs: tuple[np.ndarray, ...], conf: float = 0.0) -> tuple[np.ndarray, ...]:
        """Turn the network's own outputs into the drop-in layout.

        Args:
            outputs: What ``run`` returned.
            conf: Anchors without any score above it may be left out, which saves decoding them.

        Returns:
            (1, 4 + classes, anchors) xywh in input pixels and scores, or (1, max_det, 6) for end-to-end heads.
        """
        return outputs

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of the runtime's library."""
