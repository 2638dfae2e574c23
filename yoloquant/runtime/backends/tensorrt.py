"""TensorRT engines, through pycuda or what stands in for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.model_info import HeadLayout, ModelInfo
from ..device.cuda import Cuda, open_cuda
from ..errors import ArtifactError, TargetError
from ..tensorrt import request_for
from ..tensorrt.api import TensorRT, load
from ..tensorrt.build import deserialize, find_engine, ready_engine
from ..tensorrt.build_options import BuildOptions
from ..tensorrt.header import EngineFile, read_header
from ..tensorrt.identity import Identity, require_same
from ..tensorrt.layers import Int8Error
from ..tensorrt.plugin_outputs import is_selected, rows_of_plugin
from .base import Backend, BackendOptions, Build

if TYPE_CHECKING:
    from ..core.bundle_manifest import BundleManifest


_NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@dataclass
class _Buffer:
    """An input or output of the engine: page-locked host memory and its counterpart on the device."""

    name: str
    host: np.ndarray
    device: int


class TensorRTBackend(Backend):
    """A loaded engine.

    Args:
        path: An ``.engine`` file of this project, or the ``.onnx`` of a bundle whose engine was built on this device.
        info: The model that it holds.
        options: ``device`` is the index of the CUDA device.
        api: The TensorRT release; the installed one if None.
        cuda: The device; opened here if None.

    Raises:
        ArtifactError: There is no engine, it is damaged, or it was built for another device or release. That is told
            by its header; TensorRT does not get to see it then.
        MissingRuntimeError: TensorRT, or everything that reaches the GPU, is not installed.
        TargetError: TensorRT refuses it.
    """

    name = "tensorrt"

    def __init__(
        self,
        path: Path,
        info: ModelInfo,
        options: BackendOptions,
        *,
        api: TensorRT | None = None,
        cuda: Cuda | None = None,
    ) -> None:
        self._api = api or load()
        # After TensorRT, so that a machine without it says so, and not that it has no GPU.
        self._cuda = cuda or open_cuda(options.device)
        try:
            # Around TensorRT, too: it works in the current context, and a pipeline's thread has none.
            with self._cuda.active():
                self._open(path)
        # also for Ctrl-C: a CUDA context that is left open keeps its memory until the process ends
        except BaseException:
            self._cuda.close()
            raise
        self.info = info
        self._pinned: list[np.ndarray] = []
        self.layout = HeadLayout.RAW if options.raw else info.layout
        self.input_shape, self.input_dtype = tuple(self._input.host.shape), self._input.host.dtype

    @classmethod
    def build(cls, folder: Path, manifest: BundleManifest, device: str) -> Build | None:
        """Build the engine, or take the one that was built before; not ok if planned layers do not run in Int8."""
        try:
            built = ready_engine(request_for(folder, manifest, BuildOptions(device=device)))
        except Int8Error as exc:
            return Build(False, str(exc))
        message = f"{'built here' if built.fresh else 'already there'}: {built.path.name}"
        if built.int8 is not None:
            message += f"; {built.int8.summary()}"
        return Build(True, message, {"path": str(built.path), "fresh": built.fresh})

    def _open(self, path: Path) -> None:
        identity = Identity.of(self._api.version, self._cuda.gpu)
        file = self._find(path, identity)
        # its hash is proved before TensorRT sees it: deserializing a damaged plan can end the process
        plan = file.plan()
        self._engine = deserialize(self._api, plan, file.metadata.get("dla"))
        self._context = self._engine.create_execution_context()
        # TensorRT reports most failures by returning nothing
        if self._context is None:
            raise TargetError(f"TensorRT {self.version} has no memory left for '{file.path}'; close other programs")
        # By names where the release knows them; `_bound` has what TensorRT 10 removed.
        found = _named(self._api.module, self._engine) or _bound(self._engine)
        inputs = [self._buffer(t) for t in found if t.is_input]
        self._outputs = [self._buffer(t) for t in found if not t.is_input]
        if len(inputs) != 1 or not self._outputs:
            raise ArtifactError(
                f"'{file.path}' has {len(inputs)} inputs and {len(self._outputs)} outputs; build it again"
            )
        (self._input,) = inputs
        self._selected = is_selected([o.name for o in self._outputs])
        # Once: addresses stay, and setting them before every image would take a call for each tensor.
        self._launch = self._launcher([t.name for t in found])

    def _find(self, path: Path, identity: Identity) -> EngineFile:
        if path.suffix == ".onnx":
            return find_engine(path, identity)
        file = read_header(path)
        if not file.ours:
            raise ArtifactError(
                f"'{path}' was not built by build_engine, so what device and TensorRT it is for is unknown; build it"
            )
        require_same(identity, file.ours, path)
        return file

    def _buffer(self, tensor: _Tensor) -> _Buffer:
        # page-locked: only from such memory can a copy run beside the kernels of a stream
        host = self._cuda.pinned(tensor.shape, tensor.dtype)
        return _Buffer(tensor.name, host, self._cuda.allocate(host.nbytes))

    def _launcher(self, order: list[str]) -> Any:
        """What queues the engine: by tensor names since TensorRT 8.5, before that by a list of addresses."""
        addresses = {b.name: b.device for b in (self._input, *self._outputs)}
        stream = self._cuda.stream
        # by what is there and not by version numbers, as everywhere where releases differ
        if hasattr(self._context, "execute_async_v3"):
            for name, address in addresses.items():
                if not self._context.set_tensor_address(name, address):
                    raise TargetError(f"TensorRT {self.version} refuses the address of tensor '{name}'")
            return lambda: self._context.execute_async_v3(stream)
        bindings = [addresses[name] for name in order]
        return lambda: self._context.execute_async_v2(bindings, stream)

    def new_input(self) -> np.ndarray:
        """Page-locked memory, which ``run`` copies to the device as it is; valid until ``close``."""
        with self._cuda.active():
            tensor = self._cuda.pinned(self.input_shape, self.input_dtype)
        # Page-locked memory comes with what lay there before.
        tensor[...] = 0
        self._pinned.append(tensor)
        return tensor

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """Copy to the device, run and copy back on one stream, waiting once at the end.

        A tensor from ``new_input`` goes straight to the device, any other one through page-locked memory. The results
        lie in page-locked buffers and hold until the next call, unless they had to be converted.

        Raises:
            TargetError: The input has another shape or type, or TensorRT or CUDA failed.
        """
        host = self._input.host
        if tensor.shape != host.shape or tensor.dtype != host.dtype:
            raise TargetError(f"the engine takes {host.dtype} {host.shape}, got {tensor.dtype} {tensor.shape}")
        # by identity: equal arrays elsewhere in memory are not page-locked
        if any(tensor is own for own in self._pinned):
            host = tensor
        else:
            np.copyto(host, tensor)
        try:
            with self._cuda.active():
                self._cuda.to_device(self._input.device, host)
                queued = self._launch()
                # Queued behind the kernels on the same stream, so nothing in between has to wait.
                for output in self._outputs:
                    self._cuda.to_host(output.host, output.device)
                self._cuda.synchronize()
        except TargetError:
            raise
        except Exception as exc:  # pycuda and cuda-python have exceptions of their own
            raise TargetError(f"running the engine failed: {exc}") from exc
        # After the stream is empty: raising earlier would leave copies running into buffers that are freed.
        if not queued:
            raise TargetError(f"TensorRT {self.version} could not run the engine; see its log")
        if self._selected:
            return (rows_of_plugin({o.name: o.host for o in self._outputs}),)
        # Without a copy where the engine gives float32 anyway.
        return tuple(o.host.astype(np.float32, copy=False) for o in self._outputs)

    def close(self) -> None:
        """Free context and engine before the memory they use."""
        if self._cuda is None:
            return
        with self._cuda.active():
            # in this order, since the lambda holds the context and the context the engine
            self._launch = self._context = self._engine = None
            self._pinned.clear()
        self._cuda.close()
        self._cuda = None  # type: ignore[assignment]

    @property
    def version(self) -> str:
        """Version of TensorRT."""
        return self._api.version


@dataclass(frozen=True)
class _Tensor:
    """An input or output as the engine describes it."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    is_input: bool


def _numpy_type(kind: Any) -> np.dtype:
    """``tensorrt.nptype`` does the same, but breaks before TensorRT 8.6 with numpy 1.24, which dropped ``np.bool``."""
    if kind.name not in _NUMPY:
        raise TargetError(f"the engine has a tensor of type {kind.name}; known are {', '.join(_NUMPY)}")
    return np.dtype(_NUMPY[kind.name])


def _named(trt: Any, engine: Any) -> list[_Tensor]:
    """Since TensorRT 8.5."""
    if not hasattr(engine, "num_io_tensors"):
        return []
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [
        _Tensor(
            str(name),
            tuple(engine.get_tensor_shape(name)),
            _numpy_type(engine.get_tensor_dtype(name)),
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
        )
        for name in names
    ]


def _bound(engine: Any) -> list[_Tensor]:
    """Before TensorRT 10."""
    return [
        _Tensor(
            str(engine.get_binding_name(index)),
            tuple(engine.get_binding_shape(index)),
            _numpy_type(engine.get_binding_dtype(index)),
            bool(engine.binding_is_input(index)),
        )
        for index in range(engine.num_bindings)
    ]
