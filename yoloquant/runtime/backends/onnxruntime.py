"""ONNX Runtime, on the CPU unless another device is named."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.model_info import ModelInfo
from ..device.processors import cpu_threads, has_vnni
from ..errors import ArtifactError, MissingRuntimeError, TargetError, UsageError
from .base import Backend, BackendOptions

logger = logging.getLogger(__name__)

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "gpu": "CUDAExecutionProvider"}
"""Provider of each device that can be named."""

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxRuntimeBackend(Backend):
    """A loaded ONNX model.

    Args:
        path: The file.
        info: The model that it holds.
        options: How it is run: ``threads``, ``device``, ``optimize``.

    Raises:
        MissingRuntimeError: ONNX Runtime is not installed.
        ArtifactError: The file does not exist or holds another model.
        TargetError: ONNX Runtime cannot load it.
        UsageError: There is no such device.
    """

    name = "onnxruntime"
    any_cpu = True
    reuses_outputs = False

    def __init__(self, path: Path, info: ModelInfo, options: BackendOptions) -> None:
        self._library = _import()
        provider = _provider(self._library, options.device)
        if not path.is_file():
            raise ArtifactError(f"'{path}' does not exist; export it again")
        self._session = self._opened(path, provider, options)
        self.info, self.layout = info, info.layout
        inputs = self._session.get_inputs()
        self._input = inputs[0].name
        self.input_shape = (1, info.channels, *info.imgsz)
        self.input_dtype = np.dtype(_checked_type(inputs, path))
        _check_shape(inputs[0].shape, self.input_shape, path)
        self.batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else 1

    def _opened(self, path: Path, provider: str, options: BackendOptions) -> Any:
        """A session; without exact sums where ONNX Runtime cannot open the file with them.

        Its 1.31 cannot where several layers share one zero point of their weights, as files of other programs may.
        """
        settings = session_settings(self._library, options)
        try:
            return self._library.InferenceSession(str(path), settings, providers=[provider])
        except Exception as exc:  # its exceptions share no public base class
            if not options.exact_sums:
                raise TargetError(f"ONNX Runtime cannot load '{path}': {exc}") from exc
        session = self._opened(path, provider, replace(options, exact_sums=False))
        if has_vnni() is False:
            logger.warning(
                "ONNX Runtime opens '%s' without exact sums only: without VNNI its results may be off here",
                path.name,
            )
        return session

    @classmethod
    def on_cpu(cls, path: Path, device: str) -> bool:
        """See ``Backend.on_cpu``."""
        return PROVIDERS.get((device or "cpu").lower()) == PROVIDERS["cpu"]

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network; see ``Backend.run``."""
        try:
            outputs = self._session.run(None, {self._input: self.filled(tensor)})
        except Exception as exc:
            raise TargetError(f"ONNX Runtime failed: {exc}") from exc
        outputs = outputs if self.batch == 1 else [o[: len(tensor)] for o in outputs]
        return tuple(o if o.dtype == np.float32 else o.astype(np.float32) for o in outputs)

    def close(self) -> None:
        """Free the session."""
        del self._session

    @property
    def version(self) -> str:
        """Version of ONNX Runtime."""
        return str(self._library.__version__)


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingRuntimeError("onnxruntime", "onnxruntime", "install it with: pip install onnxruntime") from exc
    return onnxruntime


def _provider(library: Any, device: str) -> str:
    wanted = PROVIDERS.get((device or "cpu").lower())
    if wanted is None:
        raise UsageError(f"device='{device}' is not one of onnxruntime's; choose from {', '.join(PROVIDERS)}")
    available = library.get_available_providers()
    if wanted not in available:
        raise TargetError(
            f"device='{device}' needs {wanted}, which this ONNX Runtime lacks (it has {', '.join(available)}); "
            "install onnxruntime-gpu or use device=cpu"
        )
    return wanted


def session_settings(library: Any, options: BackendOptions) -> Any:
    """How a session runs a network.

    Args:
        library: The module ``onnxruntime``.
        options: How it is run.
    """
    settings = library.SessionOptions()
    # its own count is of the machine's cores, not of those that a container may use
    settings.intra_op_num_threads = options.threads or cpu_threads()
    # its warnings are of fusions and unused initializers, which nobody can do anything about
    settings.log_severity_level = 3
    # kernels with VNNI add exactly, and ONNX Runtime 1.31 would give them up for slower ones with the same results
    if options.exact_sums and not has_vnni():
        settings.add_session_config_entry("session.x64quantprecision", "1")
    levels = library.GraphOptimizationLevel
    # without optimisation Q/DQ pairs are not fused into integer kernels: each is computed by itself, in float
    settings.graph_optimization_level = levels.ORT_ENABLE_ALL if options.optimize else levels.ORT_DISABLE_ALL
    return settings


def _checked_type(inputs: Any, path: Path) -> Any:
    kinds = [i.type for i in inputs]
    if len(kinds) != 1 or kinds[0] not in TYPES:
        raise ArtifactError(f"'{path}' takes {', '.join(kinds)}, but a detector takes one float image; export it again")
    return TYPES[kinds[0]]


def _check_shape(shape: list[Any], wanted: tuple[int, ...], path: Path) -> None:
    """Raise ArtifactError unless a shape fits, for any number of images; sides that are left open are strings."""
    open_or_equal = [not isinstance(s, int) or s == w for s, w in zip(shape[1:], wanted[1:])]
    if len(shape) != len(wanted) or not all(open_or_equal):
        raise ArtifactError(f"'{path}' takes an input of shape {tuple(shape)}, its description says {wanted}")
