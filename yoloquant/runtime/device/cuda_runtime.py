"""CUDA's runtime API from Python: through cuda-python, or through the shared library libcudart."""

from __future__ import annotations

import ctypes
import ctypes.util
import glob
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from ..errors import TargetError, UsageError
from .cuda import Cuda, GpuInfo, _no_such_device

# Values of enums in CUDA's driver_types.h, the same in every release.
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76


class RuntimeApi(Protocol):
    """The functions of the runtime API that are used; each raises TargetError where CUDA returns an error."""

    library: str

    def device_count(self) -> int:
        """Number of devices."""

    def set_device(self, index: int) -> None:
        """Make a device the calling thread's."""

    def attribute(self, attribute: int, index: int) -> int:
        """An attribute of a device."""

    def name(self, index: int) -> str:
        """Name of a device."""

    def malloc(self, size: int) -> int:
        """Device memory."""

    def free(self, address: int) -> None:
        """Free device memory."""

    def malloc_host(self, size: int) -> int:
        """Page-locked host memory."""

    def free_host(self, address: int) -> None:
        """Free page-locked memory."""

    def copy_async(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        """Queue a copy."""

    def stream_create(self) -> int:
        """A new stream."""

    def stream_synchronize(self, stream: int) -> None:
        """Wait for a stream."""

    def stream_destroy(self, stream: int) -> None:
        """Free a stream."""


class CudaRuntime(Cuda):
    """A device through the runtime API, whose primary context is current in every thread that names the device.

    Args:
        api: What calls CUDA.
        index: Index of the device.
    """

    def __init__(self, api: RuntimeApi, index: int) -> None:
        self._api, self._index, self.library = api, index, api.library
        count = api.device_count()
        if index >= count:
            raise UsageError(_no_such_device(index, count))
        # Before the stream, which belongs to the device that is current when it is made.
        api.set_device(index)
        major, minor = (api.attribute(a, index) for a in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR))
        self.gpu = GpuInfo(api.name(index), f"{major}.{minor}")
        self.stream = api.stream_create()
        self._device: list[int] = []
        self._host: list[int] = []

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array over page-locked memory."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        address = self._api.malloc_host(max(count * kind.itemsize, 1))
        self._host.append(address)
        # A view: the array does not own the memory, `close` frees it.
        memory = (ctypes.c_char * (count * kind.itemsize)).from_address(address)
        return np.frombuffer(memory, dtype=kind, count=count).reshape(shape)

    def allocate(self, size: int) -> int:
        """Device memory."""
        address = self._api.malloc(size)
        self._device.append(address)
        return address

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Queue a copy."""
        self._api.copy_async(address, array.ctypes.data, array.nbytes, HOST_TO_DEVICE, self.stream)

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Queue a copy."""
        self._api.copy_async(array.ctypes.data, address, array.nbytes, DEVICE_TO_HOST, self.stream)

    def synchronize(self) -> None:
        """Wait."""
        self._api.stream_synchronize(self.stream)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Name the device; in a new thread the first one is current."""
        self._api.set_device(self._index)
        yield

    def close(self) -> None:
        """Free everything, once."""
        for address in self._device:
            self._api.free(address)
        for address in self._host:
            self._api.free_host(address)
        # 0 is the default stream, which nobody may destroy, and what this is after the first `close`.
        if self.stream:
            self._api.stream_destroy(self.stream)
        self._device, self._host, self.stream = [], [], 0


class CudaPython:
    """cuda-python: every function returns a tuple that starts with the error."""

    library = "cuda-python"

    def __init__(self) -> None:
        try:
            self._cuda = importlib.import_module("cuda.bindings.runtime")  # cuda-python 12.6 and later
        except ImportError:
            self._cuda = importlib.import_module("cuda.cudart")

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._cuda, name)(*arguments)
        if int(status) != 0:
            raise TargetError(f"{name} failed: {getattr(status, 'name', status)}")
        return results[0] if len(results) == 1 else results

    def device_count(self) -> int:
        """Number of devices."""
        return int(self._call("cudaGetDeviceCount"))

    def set_device(self, index: int) -> None:
        """Make a device the calling thread's."""
        self._call("cudaSetDevice", index)

    def attribute(self, attribute: int, index: int) -> int:
        """An attribute of a device."""
        return int(self._call("cudaDeviceGetAttribute", self._cuda.cudaDeviceAttr(attribute), index))

    def name(self, index: int) -> str:
        """Name of a device."""
        name = self._call("cudaGetDeviceProperties", index).name
        return name.decode("utf-8", "replace").rstrip("\0") if isinstance(name, bytes) else str(name)

    def malloc(self, size: int) -> int:
        """Device memory."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", address)

    def malloc_host(self, size: int) -> int:
        """Page-locked host memory."""
        return int(self._call("cudaMallocHost", size))

    def free_host(self, address: int) -> None:
        """Free page-locked memory."""
        self._call("cudaFreeHost", address)

    def copy_async(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        """Queue a copy."""
        self._call("cudaMemcpyAsync", target, source, size, self._cuda.cudaMemcpyKind(kind), stream)

    def stream_create(self) -> int:
        """A new stream."""
        return int(self._call("cudaStreamCreate"))

    def stream_synchronize(self, stream: int) -> None:
        """Wait for a stream."""
        self._call("cudaStreamSynchronize", stream)

    def stream_destroy(self, stream: int) -> None:
        """Free a stream."""
        self._call("cudaStreamDestroy", stream)


class LibCudart:
    """The shared library that CUDA, and so every JetPack, installs.

    Args:
        path: The library; found by its usual names if empty.

    Raises:
        TargetError: There is none.
    """

    library = "cudart"

    def __init__(self, path: str = "") -> None:
        self._cuda = _load(path)
        # ctypes takes every result for a C int, which would cut a pointer of 64 bits in half.
        self._cuda.cudaGetErrorName.restype = ctypes.c_char_p

    def _call(self, name: str, *arguments: Any) -> None:
        status = int(getattr(self._cuda, name)(*arguments))
        if status != 0:
            text = self._cuda.cudaGetErrorName(status) or b"?"
            raise TargetError(f"{name} failed: {text.decode('ascii', 'replace')} ({status})")

    def _number(self, name: str, *arguments: Any) -> int:
        number = ctypes.c_int(0)
        self._call(name, ctypes.byref(number), *arguments)
        return number.value

    def _pointer(self, name: str, *arguments: Any) -> int:
        pointer = ctypes.c_void_p(None)
        self._call(name, ctypes.byref(pointer), *arguments)
        return int(pointer.value or 0)

    def device_count(self) -> int:
        """Number of devices."""
        return self._number("cudaGetDeviceCount")

    def set_device(self, index: int) -> None:
        """Make a device the calling thread's."""
        self._call("cudaSetDevice", ctypes.c_int(index))

    def attribute(self, attribute: int, index: int) -> int:
        """An attribute of a device."""
        return self._number("cudaDeviceGetAttribute", ctypes.c_int(attribute), ctypes.c_int(index))

    def name(self, index: int) -> str:
        """Name of a device: the first member of ``cudaDeviceProp``, 256 characters, in every release."""
        properties = ctypes.create_string_buffer(1 << 16)  # the structure is about 1 kB and grows with the releases
        self._call("cudaGetDeviceProperties", properties, ctypes.c_int(index))
        return properties.value.decode("utf-8", "replace")

    def malloc(self, size: int) -> int:
        """Device memory."""
        return self._pointer("cudaMalloc", ctypes.c_size_t(size))

    def free(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def malloc_host(self, size: int) -> int:
        """Page-locked host memory."""
        return self._pointer("cudaMallocHost", ctypes.c_size_t(size))

    def free_host(self, address: int) -> None:
        """Free page-locked memory."""
        self._call("cudaFreeHost", ctypes.c_void_p(address))

    def copy_async(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        """Queue a copy."""
        # With their types: ctypes hands over plain integers as C ints, which cannot hold an address.
        pointers = (ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size))
        self._call("cudaMemcpyAsync", *pointers, ctypes.c_int(kind), ctypes.c_void_p(stream))

    def stream_create(self) -> int:
        """A new stream."""
        return self._pointer("cudaStreamCreate")

    def stream_synchronize(self, stream: int) -> None:
        """Wait for a stream."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def stream_destroy(self, stream: int) -> None:
        """Free a stream."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))


def _load(path: str) -> Any:
    names: list[str | None] = [path] if path else [ctypes.util.find_library("cudart"), "libcudart.so"]
    if not path:
        # The newest first; CUDA's own folder is not always among those that the loader searches.
        names += sorted(glob.glob("/usr/local/cuda*/lib64/libcudart.so*"), reverse=True)
    for name in names:
        if name:
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
    raise TargetError("no libcudart was found")
