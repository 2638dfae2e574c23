"""LiteRT (TensorFlow Lite): XNNPACK kernels on CPUs, and the Edge TPU through its delegate."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..core.model_info import ModelInfo
from ..device.processors import cpu_threads
from ..errors import ArtifactError, MissingRuntimeError, TargetError, UsageError
from ..tasks import spec_of
from .base import Backend, BackendOptions

LIBRARIES = ("ai_edge_litert", "tflite_runtime")
"""Packages that hold the interpreter, the preferred one first."""
COMPILED_OPERATOR = b"edgetpu-custom-op"
"""What a file holds once Edge TPU's compiler has been at it."""
# Far more than a delegate takes to load; it only ends a process that hangs.
_DELEGATE_S = 60.0
TPU_DEVICES = ("usb", "pci")


class LiteRTBackend(Backend):
    """A loaded ``.tflite``.

    Args:
        path: The file.
        info: The model that it holds.
        options: How it is run: ``threads``, ``raw``, ``optimize``, ``device`` (``cpu``, or ``tpu``, ``usb``, ``pci``,
            ``usb:0`` for an Edge TPU; a file compiled for one needs no naming).

    Raises:
        MissingRuntimeError: No interpreter, or no driver of the Edge TPU, is installed.
        ArtifactError: The file does not hold such a model.
        TargetError: The interpreter cannot run it.
        UsageError: There is no such device.
    """

    name = "litert"
    any_cpu = True

    def __init__(self, path: Path, info: ModelInfo, options: BackendOptions) -> None:
        self._library, module = _import()
        if not path.is_file():
            raise ArtifactError(f"'{path}' does not exist; export it again")
        delegates = _delegates(module, path, options.device)
        try:
            self._interpreter = module.Interpreter(
                str(path),
                # The interpreter's own default is a single thread.
                num_threads=options.threads or cpu_threads(),
                experimental_delegates=delegates,
                **_resolver(module, options.optimize),
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as exc:
            raise TargetError(f"LiteRT cannot load '{path}': {exc}") from exc
        self.info, self.layout, self._raw = info, info.layout, options.raw
        self._read_input(path)
        self._outputs = [_Output(detail) for detail in _ordered(self._interpreter)]

    def _read_input(self, path: Path) -> None:
        (detail,) = self._interpreter.get_input_details()
        self._input = detail["index"]
        self.input_shape = tuple(int(side) for side in detail["shape"])
        self.input_dtype = np.dtype(detail["dtype"])
        # raw files take the camera's integers; without a scale nobody could say what they mean
        if self.input_dtype.kind != "f":
            scale, zero_point = detail["quantization"]
            if not scale:
                raise ArtifactError(f"'{path}' takes {self.input_dtype} without a scale; quantize it with one")
            self.input_quantization = float(scale), int(zero_point)
        if not self.channels_last and self.input_shape != (1, self.info.channels, *self.info.imgsz):
            raise ArtifactError(f"'{path}' takes {self.input_shape}, its metadata says imgsz={self.info.imgsz}")

    @classmethod
    def form(cls, path: Path, device: str) -> Path:
        """The compiled form for an Edge TPU, which ``edgetpu_compiler`` puts beside it as ``<name>_edgetpu.tflite``."""
        compiled = path.with_name(f"{path.stem}_edgetpu{path.suffix}")
        wanted = device.lower().split(":")[0] in {"tpu", *TPU_DEVICES}
        return compiled if wanted and compiled.is_file() else path

    @classmethod
    def on_cpu(cls, path: Path, device: str) -> bool:
        """See ``Backend.on_cpu``; a file compiled for an Edge TPU is not for the processor."""
        return device.lower() in {"", "cpu"} and path.is_file() and not _compiled(path)

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network; see ``Backend.run``."""
        try:
            self._interpreter.set_tensor(self._input, tensor)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as exc:
            raise TargetError(f"LiteRT failed: {exc}") from exc
        return tuple(output.read(self._interpreter) for output in self._outputs)

    def decode(self, outputs: tuple[np.ndarray, ...], conf: float = 0.0) -> tuple[np.ndarray, ...]:
        """Raw levels to the drop-in layout, and fractions of the image to pixels."""
        task = spec_of(self.info.task)
        return task.decode_raw(outputs, self.info, conf) if self._raw else task.to_pixels(outputs, self.info, conf)

    def close(self) -> None:
        """Free the interpreter."""
        del self._interpreter

    @property
    def version(self) -> str:
        """Version of the interpreter's package."""
        return str(getattr(importlib.import_module(self._library), "__version__", "unknown"))


def _resolver(module: Any, optimize: bool) -> dict[str, Any]:
    """Keywords that keep XNNPACK away where its kernels are not wanted."""
    if optimize:
        return {}
    return {"experimental_op_resolver_type": module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}


class _Output:
    """One output tensor and the float32 buffer that its values are read into."""

    def __init__(self, detail: dict[str, Any]) -> None:
        self.index, self.dtype = int(detail["index"]), np.dtype(detail["dtype"])
        scale, zero_point = detail["quantization"]
        self.scale, self.zero_point = np.float32(scale), np.float32(zero_point)
        self.values = np.zeros(tuple(int(side) for side in detail["shape"]), np.float32)

    def read(self, interpreter: Any) -> np.ndarray:
        """Its present values: of integers ``(q - zero_point) * scale``, in float32."""
        # a view of the interpreter's own memory: it is read before the next run and never kept
        stored = interpreter.tensor(self.index)()
        if self.dtype.kind == "f":
            np.copyto(self.values, stored)
        else:
            # into a buffer of our own: the interpreter refuses to run while a view of its memory is alive
            np.subtract(stored, self.zero_point, out=self.values, dtype=np.float32)
            self.values *= self.scale
        return self.values


def _import() -> tuple[str, Any]:
    """The package of the interpreter, and its module."""
    for library in LIBRARIES:
        if importlib.util.find_spec(library) is not None:
            try:
                return library, importlib.import_module(f"{library}.interpreter")
            except ImportError as exc:
                raise TargetError(f"{library} is installed but cannot be imported: {exc}") from exc
    raise MissingRuntimeError(
        "litert", LIBRARIES[0], "install it with: pip install ai-edge-litert (or tflite-runtime, on an older Python)"
    )


def _ordered(interpreter: Any) -> list[dict[str, Any]]:
    """Outputs in the order of the converted module's results; the interpreter's own order may differ."""
    details = list(interpreter.get_output_details())
    signatures = interpreter.get_signature_list()
    # files of older converters have none, and list their outputs in order
    if not signatures:
        return details
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    by_name = {name: d["index"] for name, d in runner.get_output_details().items()}
    # ``output_10`` comes behind ``output_9``, not behind ``output_1``
    names = sorted(by_name, key=lambda name: int(name.rsplit("_", 1)[-1]))
    by_index = {d["index"]: d for d in details}
    return [by_index[by_name[name]] for name in names]


def _compiled(path: Path) -> bool:
    """Whether Edge TPU's compiler has been at a file."""
    # A search instead of reading the flatbuffer: a device has no schema of it, and the name stands there as it is.
    return COMPILED_OPERATOR in path.read_bytes()


def _delegates(module: Any, path: Path, device: str) -> list[Any] | None:
    """The Edge TPU's delegate if the file was compiled for it or the device is named."""
    kind = device.lower()
    compiled = _compiled(path)
    if kind not in {"", "cpu", "tpu", *TPU_DEVICES} and kind.split(":")[0] not in TPU_DEVICES:
        raise UsageError(f"device='{device}' is not one of litert's; choose from cpu, tpu, usb, pci, usb:0, pci:0")
    if compiled and kind == "cpu":
        raise UsageError(f"'{path}' is compiled for an Edge TPU and does not run on the CPU; leave device= out")
    if kind == "cpu" or (not kind and not compiled):
        return None
    library = {"darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}.get(sys.platform, "libedgetpu.so.1")
    if not compiled:
        raise ArtifactError(f"'{path}' is not compiled for an Edge TPU; run edgetpu_compiler on it first")
    # Without the key the driver takes the first Edge TPU that it finds.
    options = {"device": kind} if kind and kind != "tpu" else {}
    _try_delegate(module, library, options)
    try:
        return [module.load_delegate(library, options)]
    except (ValueError, OSError) as exc:
        raise MissingRuntimeError(
            "litert", library, f"or no Edge TPU is connected ({exc}); install Coral's libedgetpu1-std and plug it in"
        ) from exc


def _try_delegate(module: Any, library: str, options: dict[str, str]) -> None:
    """Load a delegate in a process of its own first: one that does not fit its interpreter ends the process.

    Raises:
        TargetError: That process was ended by a signal.
    """
    program = (
        "import importlib, json, sys; "
        "importlib.import_module(sys.argv[1]).load_delegate(sys.argv[2], json.loads(sys.argv[3]))"
    )
    command = [sys.executable, "-c", program, str(getattr(module, "__name__", "")), library, json.dumps(options)]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=_DELEGATE_S, check=False).returncode
    except (OSError, subprocess.TimeoutExpired):
        # a slow or missing interpreter is no proof of a crash
        return  # it is tried here, and says what is wrong
    if ended < 0:
        raise TargetError(
            f"the delegate '{library}' crashes when it is loaded (signal {-ended}); it was built for another version "
            "of LiteRT: install libedgetpu and the LiteRT release that belong together, or leave device= out"
        )
