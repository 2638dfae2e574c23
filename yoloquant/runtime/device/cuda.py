"""Memory and streams of a CUDA device: through pycuda, else through cuda-python, else through libcudart itself.

All three work in the device's primary context, which is the one that TensorRT uses. Host buffers are page-locked, so
that copies run asynchronously and without a staging copy.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MissingRuntimeError, TargetError, UsageError

FIX = (
    "install pycuda (pip install pycuda, on a Jetson with CUDA's headers and PATH=/usr/local/cuda/bin:$PATH) or "
    "cuda-python (pip install cuda-python, of the major version of the device's CUDA)"
)


@dataclass(frozen=True)
class GpuInfo:
    """A GPU.

    Attributes:
        name: What the driver calls it, for instance ``Orin``.
        compute_capability: Major and minor number, for instance ``8.7``.
    """

    name: str
    compute_capability: str


class Cuda(ABC):
    """One device with one stream; every address is a plain integer, as TensorRT takes it.

    Attributes:
        library: Name of the library behind it.
        gpu: The device.
        stream: Handle of the stream that all copies, and the engine, run on.
    """

    library: str
    gpu: GpuInfo
    stream: int

    @abstractmethod
    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A C-contiguous host array in page-locked memory; valid until ``close``."""

    @abstractmethod
    def allocate(self, size: int) -> int:
        """Address of new device memory of so many bytes; freed by ``close``."""

    @abstractmethod
    def to_device(self, address: int, array: np.ndarray) -> None:
        """Queue a copy of a page-locked array."""

    @abstractmethod
    def to_host(self, array: np.ndarray, address: int) -> None:
        """Queue a copy into a page-locked array."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything that was queued."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the device's context the calling thread's; needed around every use, TensorRT's included."""
        yield

    @abstractmethod
    def close(self) -> None:
        """Free the stream and all memory; arrays from ``pinned`` must not be used afterwards."""


class PyCuda(Cuda):
    """Through pycuda's driver interface.

    ``pycuda.autoinit`` would make a context of its own; this retains the primary one instead, which TensorRT uses too
    (pycuda documentation, ``Device.retain_primary_context``).
    """

    library = "pycuda"

    def __init__(self, index: int) -> None:
        driver = self._driver = importlib.import_module("pycuda.driver")
        # Without `pycuda.autoinit`, see the class.
        driver.init()
        count = driver.Device.count()
        if index >= count:
            raise UsageError(_no_such_device(index, count))
        device = driver.Device(index)
        self.gpu = GpuInfo(str(device.name()), "{}.{}".format(*device.compute_capability()))
        self._context = _primary_context(device, index)
        with self.active():
            self._stream = driver.Stream()
        self.stream = int(self._stream.handle)
        self._memory: dict[int, Any] = {}

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Page-locked memory that pycuda frees with the array."""
        array: np.ndarray = self._driver.pagelocked_empty(shape, dtype)
        return array

    def allocate(self, size: int) -> int:
        """Device memory."""
        memory = self._driver.mem_alloc(size)
        # Kept, since pycuda frees device memory together with the object that stands for it.
        self._memory[int(memory)] = memory
        return int(memory)

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Queue a copy."""
        self._driver.memcpy_htod_async(address, array, self._stream)

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Queue a copy."""
        self._driver.memcpy_dtoh_async(array, address, self._stream)

    def synchronize(self) -> None:
        """Wait."""
        self._stream.synchronize()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Push the context; a thread that never did has none."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def close(self) -> None:
        """Free in the context that everything belongs to; the context itself stays until the process ends."""
        if self._context is None:
            return
        with self.active():
            # Inside: what pycuda destroys wants its own context to be the current one.
            for memory in self._memory.values():
                memory.free()
            self._memory.clear()
            self._stream = None
        self._context = None


_CONTEXTS: dict[int, Any] = {}


def _primary_context(device: Any, index: int) -> Any:
    """The primary context of a device, retained once for the life of the process.

    pycuda 2026.1 would otherwise give it back with ``cuCtxDetach``, which primary contexts do not take: its destructor
    calls the base class's ``detach_internal`` (``src/cpp/cuda.hpp``). An explicit ``detach`` is right, but leaves the
    context on the thread's stack, so it waits for the end.
    """
    if index not in _CONTEXTS:
        _CONTEXTS[index] = device.retain_primary_context()
        atexit.register(_release, index)
    return _CONTEXTS[index]


def _release(index: int) -> None:
    context = _CONTEXTS.pop(index, None)
    if context is not None:
        # It can be given back only while it is the current one.
        context.push()
        context.detach()


def _open_pycuda(index: int) -> Cuda:
    return PyCuda(index)


def _open_cuda_python(index: int) -> Cuda:
    from .cuda_runtime import CudaPython, CudaRuntime

    return CudaRuntime(CudaPython(), index)


def _open_cudart(index: int) -> Cuda:
    from .cuda_runtime import CudaRuntime, LibCudart

    return CudaRuntime(LibCudart(), index)


LIBRARIES: dict[str, Callable[[int], Cuda]] = {
    "pycuda": _open_pycuda,
    "cuda-python": _open_cuda_python,
    "cudart": _open_cudart,
}
"""What can drive a device, best first; ``cudart`` is CUDA's own shared library and needs no Python package."""

_MODULES = {"pycuda": "pycuda", "cuda-python": "cuda"}


def device_index(text: str) -> int:
    """Index of a CUDA device: ``0``, ``cuda:1`` or nothing, which is the first.

    Raises:
        UsageError: It is something else.
    """
    digits = text.strip().lower()
    if digits.startswith("cuda:"):
        digits = digits[len("cuda:") :]
    if digits in {"", "cuda"}:
        return 0
    if not digits.isdigit():
        raise UsageError(f"device '{text}' is no CUDA device; allowed are 0, 1 ... or cuda:0, cuda:1 ...")
    return int(digits)


def open_cuda(device: str = "", library: str = "") -> Cuda:
    """Open a device with the first library that works.

    Args:
        device: ``0``, ``cuda:0`` ...; the first one if empty.
        library: Name of the only library to try; any if empty.

    Raises:
        UsageError: There is no such device or library.
        MissingRuntimeError: No library is installed.
        TargetError: Libraries are there, but none finds a working device; the message has every reason.
    """
    index = device_index(device)
    if library and library not in LIBRARIES:
        raise UsageError(f"there is no CUDA library '{library}'; there are {', '.join(LIBRARIES)}")
    reasons = []
    for name in [library] if library else LIBRARIES:
        module = _MODULES.get(name)
        # A package that is not there is no reason worth telling; one that is there and fails is.
        if module is not None and importlib.util.find_spec(module) is None:
            continue
        try:
            return LIBRARIES[name](index)
        # An index that does not exist is no better with the next library.
        except UsageError:
            raise
        except Exception as exc:  # a missing driver shows as ImportError, OSError or the library's own exception
            reasons.append(f"{name}: {exc}")
    # libcudart is tried without a package: where that is all that failed, nothing is installed.
    if not reasons or all(reason.startswith("cudart: no libcudart") for reason in reasons):
        raise MissingRuntimeError("tensorrt", "pycuda", FIX)
    raise TargetError(f"no CUDA device can be used ({'; '.join(reasons)}); is this the device with the GPU? {FIX}")


def _no_such_device(index: int, count: int) -> str:
    return f"there is no CUDA device {index}; this machine has {count}"
