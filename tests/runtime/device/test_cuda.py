from __future__ import annotations

import ctypes
import enum
import importlib.util
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from yoloquant.runtime.device import cuda as module
from yoloquant.runtime.device.cuda import LIBRARIES, Cuda, GpuInfo, device_index, open_cuda
from yoloquant.runtime.device.cuda_runtime import CudaRuntime, LibCudart
from yoloquant.runtime.errors import MissingRuntimeError, TargetError, UsageError

STUB = r"""
#include <stdlib.h>
#include <string.h>
/* The CUDA runtime's functions over ordinary memory: copies happen when the stream is waited for. */
#define MAX 64
static struct { void *to; const void *from; size_t size; int kind; } queue[MAX];
static int queued, live;
int live_things(void) { return live; }
const char *cudaGetErrorName(int status) { return status == 100 ? "cudaErrorNoDevice" : "cudaErrorInvalidValue"; }
int cudaGetDeviceCount(int *count) { *count = getenv("STUB_NONE") ? 0 : 1; return getenv("STUB_NONE") ? 100 : 0; }
int cudaSetDevice(int index) { return index == 0 ? 0 : 1; }
int cudaDeviceGetAttribute(int *value, int attribute, int index) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1; return index; }
int cudaGetDeviceProperties(void *properties, int index) { strcpy(properties, "Orin (stub)"); return index; }
static int take(void **p, size_t size) { live++; *p = malloc(size); memset(*p, 0xff, size); return *p ? 0 : 2; }
static int give(void *p) { live--; free(p); return 0; }
int cudaMalloc(void **p, size_t size) { return take(p, size); }
int cudaMallocHost(void **p, size_t size) { return take(p, size); }
int cudaFree(void *p) { return give(p); }
int cudaFreeHost(void *p) { return give(p); }
int cudaStreamCreate(void **stream) { live++; *stream = malloc(1); return 0; }
int cudaStreamDestroy(void *stream) { live--; free(stream); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  if (!stream || queued == MAX) return 1;
  queue[queued].to = to; queue[queued].from = from; queue[queued].size = size; queue[queued++].kind = kind; return 0; }
int cudaStreamSynchronize(void *stream) {
  for (int i = 0; i < queued; i++) memcpy(queue[i].to, queue[i].from, queue[i].size);
  queued = 0; return stream ? 0 : 1; }
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library with the ABI of libcudart."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a stand-in of libcudart with")
    folder = tmp_path_factory.mktemp("cudart")
    (folder / "stub.c").write_text(STUB)
    library = folder / "libcudart.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "stub.c")], check=True)
    return library


def _round_trip(cuda: Cuda) -> None:
    """A copy to the device and back arrives, and only once the stream was waited for."""
    with cuda.active():
        array = cuda.pinned((2, 3), np.float32)
        back = cuda.pinned((2, 3), np.float32)
        assert array.flags.c_contiguous and array.shape == (2, 3) and array.dtype == np.float32
        array[...] = np.arange(6).reshape(2, 3)
        back[...] = -1
        address = cuda.allocate(array.nbytes)
        assert isinstance(address, int) and address
        cuda.to_device(address, array)
        cuda.to_host(back, address)
        cuda.synchronize()
        np.testing.assert_array_equal(back, array)


def test_shared_library(stub: Path) -> None:
    cuda = CudaRuntime(LibCudart(str(stub)), 0)
    library = ctypes.CDLL(str(stub))
    assert cuda.gpu == GpuInfo("Orin (stub)", "8.7") and cuda.library == "cudart" and cuda.stream
    _round_trip(cuda)
    half = cuda.pinned((3,), np.float16)
    half[...] = 1.5
    assert half.tolist() == [1.5] * 3 and cuda.pinned((0,), np.int8).size == 0
    del half
    cuda.close()
    cuda.close()
    assert library.live_things() == 0


def test_copies_are_queued(stub: Path) -> None:
    cuda = CudaRuntime(LibCudart(str(stub)), 0)
    array, back = cuda.pinned((4,), np.float32), cuda.pinned((4,), np.float32)
    array[...], back[...] = 5, 0
    address = cuda.allocate(16)
    cuda.to_device(address, array)
    cuda.to_host(back, address)
    assert back.tolist() == [0] * 4
    cuda.synchronize()
    assert back.tolist() == [5] * 4
    cuda.close()


def test_error_of_the_shared_library_is_named(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_NONE", "1")
    with pytest.raises(TargetError, match=r"cudaGetDeviceCount failed: cudaErrorNoDevice \(100\)"):
        CudaRuntime(LibCudart(str(stub)), 0)


def test_device_that_is_not_there(stub: Path) -> None:
    with pytest.raises(UsageError, match="no CUDA device 3; this machine has 1"):
        CudaRuntime(LibCudart(str(stub)), 3)


class FakeBindings(ModuleType):
    """``cuda.bindings.runtime`` of cuda-python: every function returns a tuple that starts with the status."""

    def __init__(self, library: Any) -> None:
        super().__init__("cuda.bindings.runtime")
        self.lib = library
        self.cudaError_t = enum.IntEnum("cudaError_t", {"cudaSuccess": 0, "cudaErrorInvalidValue": 1})
        self.cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", {"HostToDevice": 1, "DeviceToHost": 2})
        self.cudaDeviceAttr = enum.IntEnum("cudaDeviceAttr", {"Major": 75, "Minor": 76})

    def _status(self, code: int) -> Any:
        return self.cudaError_t(code)

    def cudaGetDeviceCount(self) -> Any:
        return self._status(0), 1

    def cudaSetDevice(self, index: int) -> Any:
        return (self._status(0 if index == 0 else 1),)

    def cudaDeviceGetAttribute(self, attribute: Any, index: int) -> Any:
        assert isinstance(attribute, self.cudaDeviceAttr)
        return self._status(0), {75: 8, 76: 7}[int(attribute)]

    def cudaGetDeviceProperties(self, index: int) -> Any:
        return self._status(0), SimpleNamespace(name=b"Orin\0\0")

    def cudaMalloc(self, size: int) -> Any:
        pointer = ctypes.c_void_p()
        self.lib.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(size))
        return self._status(0), pointer.value

    def cudaMallocHost(self, size: int) -> Any:
        return self.cudaMalloc(size)

    def cudaFree(self, address: int) -> Any:
        return (self._status(self.lib.cudaFree(ctypes.c_void_p(address))),)

    def cudaFreeHost(self, address: int) -> Any:
        return self.cudaFree(address)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: Any, stream: Any) -> Any:
        assert isinstance(kind, self.cudaMemcpyKind)
        pointers = (ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size))
        return (self._status(self.lib.cudaMemcpyAsync(*pointers, int(kind), ctypes.c_void_p(int(stream)))),)

    def cudaStreamCreate(self) -> Any:
        pointer = ctypes.c_void_p()
        self.lib.cudaStreamCreate(ctypes.byref(pointer))
        return self._status(0), pointer.value

    def cudaStreamSynchronize(self, stream: Any) -> Any:
        return (self._status(self.lib.cudaStreamSynchronize(ctypes.c_void_p(int(stream)))),)

    def cudaStreamDestroy(self, stream: Any) -> Any:
        return (self._status(self.lib.cudaStreamDestroy(ctypes.c_void_p(int(stream)))),)


@pytest.mark.parametrize("modern", [True, False])
def test_cuda_python(stub: Path, monkeypatch: pytest.MonkeyPatch, modern: bool) -> None:
    bindings = FakeBindings(ctypes.CDLL(str(stub)))
    real = importlib.import_module

    def load(name: str) -> Any:
        if name == ("cuda.bindings.runtime" if modern else "cuda.cudart"):
            return bindings
        if name.startswith("cuda"):
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr("yoloquant.runtime.device.cuda_runtime.importlib.import_module", load)
    cuda = LIBRARIES["cuda-python"](0)
    assert cuda.gpu == GpuInfo("Orin", "8.7") and cuda.library == "cuda-python"
    _round_trip(cuda)
    cuda.close()
    assert bindings.lib.live_things() == 0


class Context:
    """A primary context, current in the threads that pushed it."""

    current: ClassVar[threading.local] = threading.local()

    def push(self) -> None:
        Context.current.stack = [*getattr(Context.current, "stack", []), self]

    def pop(self) -> None:
        Context.current.stack.pop()

    def detach(self) -> None:
        Context.current.stack.pop()
        self.detached = True


def _fake_pycuda() -> ModuleType:
    """The part of ``pycuda.driver`` that is used, with the signatures of pycuda 2026.1; each call needs a context."""
    driver: Any = ModuleType("pycuda.driver")
    memory: dict[int, np.ndarray] = {}
    pending: list[Any] = []
    driver.freed = []

    def current() -> None:
        if not getattr(Context.current, "stack", []):
            raise RuntimeError("cuCtxGetCurrent: invalid device context - no currently active context?")

    class Stream:
        handle = 4711

        def __init__(self) -> None:
            current()

        def synchronize(self) -> None:
            current()
            for action in pending:
                action()
            pending.clear()

    class Allocation:
        def __init__(self, size: int) -> None:
            current()
            self.address = 4096 * (1 + len(memory))
            memory[self.address] = np.zeros(size, np.uint8)

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            current()
            driver.freed.append(self.address)

    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        @staticmethod
        def count() -> int:
            return 1

        def name(self) -> str:
            return "Orin"

        def compute_capability(self) -> tuple[int, int]:
            return 8, 7

        def retain_primary_context(self) -> Context:
            return Context()

    def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        current()
        return np.empty(shape, dtype, order)

    def htod(dest: int, src: np.ndarray, stream: Stream) -> None:
        current()
        pending.append(lambda: memory[dest].__setitem__(slice(None), src.view(np.uint8).ravel()))

    def dtoh(dest: np.ndarray, src: int, stream: Stream) -> None:
        current()
        pending.append(lambda: dest.view(np.uint8).reshape(-1).__setitem__(slice(None), memory[src]))

    driver.init = lambda: None
    driver.Device, driver.Stream, driver.mem_alloc = Device, Stream, Allocation
    driver.pagelocked_empty, driver.memcpy_htod_async, driver.memcpy_dtoh_async = pagelocked_empty, htod, dtoh
    return driver


def _install_pycuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    driver = _fake_pycuda()
    monkeypatch.setattr(module, "_CONTEXTS", {})
    package = ModuleType("pycuda")
    package.__spec__ = importlib.util.spec_from_loader("pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return driver


def test_pycuda_works_in_the_primary_context_of_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = _install_pycuda(monkeypatch)
    cuda = open_cuda()
    assert cuda.library == "pycuda" and cuda.gpu == GpuInfo("Orin", "8.7") and cuda.stream == 4711
    _round_trip(cuda)
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            _round_trip(cuda)
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert errors == []
    assert getattr(Context.current, "stack", []) == [], "the context was left behind"
    cuda.close()
    cuda.close()
    assert len(driver.freed) == 2


def test_pycuda_keeps_the_primary_context_until_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    _install_pycuda(monkeypatch)
    first, second = open_cuda(), open_cuda()
    first.close()
    second.close()
    (context,) = module._CONTEXTS.values()
    assert not hasattr(context, "detached")
    module._release(0)
    module._release(0)
    assert context.detached and module._CONTEXTS == {}


def test_pycuda_comes_first_and_the_others_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(name: str) -> Any:
        def opener(index: int) -> Cuda:
            tried.append(name)
            raise OSError(f"{name} is broken")

        return opener

    monkeypatch.setattr(module, "LIBRARIES", {name: refuse(name) for name in LIBRARIES})
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(TargetError, match=r"pycuda: pycuda is broken; cuda-python: .*; cudart: .*pip install pycuda"):
        open_cuda()
    assert tried == ["pycuda", "cuda-python", "cudart"]


def test_nothing_installed_names_both_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(index: int) -> Cuda:
        raise TargetError("no libcudart was found")

    monkeypatch.setattr(module, "LIBRARIES", {**LIBRARIES, "cudart": none})
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingRuntimeError, match=r"pip install pycuda.*pip install cuda-python"):
        open_cuda()


@pytest.mark.parametrize(("text", "index"), [("", 0), ("0", 0), ("1", 1), ("cuda", 0), ("cuda:2", 2), (" CUDA:1 ", 1)])
def test_device_names(text: str, index: int) -> None:
    assert device_index(text) == index


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "-1", "0,1"])
def test_odd_device_names(text: str) -> None:
    with pytest.raises(UsageError, match="is no CUDA device"):
        device_index(text)


def test_unknown_library() -> None:
    with pytest.raises(UsageError, match="there is no CUDA library 'opencl'"):
        open_cuda(library="opencl")


def _gpus(library: str) -> bool:
    try:
        open_cuda(library=library).close()
        return True
    except (MissingRuntimeError, TargetError, UsageError):
        return False


@pytest.mark.parametrize("library", list(LIBRARIES))
def test_real_library(library: str) -> None:
    """On a machine with a GPU, memory makes the way there and back; without one the reason is told."""
    if not _gpus(library):
        with pytest.raises((TargetError, UsageError)) as caught:
            open_cuda(library=library)
        assert "CUDA" in str(caught.value) or "pycuda" in str(caught.value)
        pytest.skip(f"{library} finds no GPU: {caught.value}")
    cuda = open_cuda(library=library)
    assert cuda.gpu.name and cuda.gpu.compute_capability.count(".") == 1
    _round_trip(cuda)
    cuda.close()
