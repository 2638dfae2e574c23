"""ExecuTorch with XNNPACK, through its Python runtime (which brings torch; apps use its C++, Kotlin or Swift API)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ..core.model_info import ModelInfo
from ..errors import ArtifactError, MissingRuntimeError, TargetError, UsageError
from .base import Backend, BackendOptions

QUANTIZED_KERNELS = "executorch.kernels.quantized"
"""Importing it registers kernels that quantize outside of delegates."""


class ExecuTorchBackend(Backend):
    """A loaded ``.pte``.

    Args:
        path: The file, or the folder that holds it.
        info: The model that it holds.
        options: How it is run: ``device`` (``cpu`` alone). The number of threads is the runtime's own: as many as there
            are cores.

    Raises:
        MissingRuntimeError: ExecuTorch is not installed.
        ArtifactError: There is no such file, or it holds another model.
        TargetError: The runtime cannot load it.
        UsageError: There is no such device.
    """

    name = "executorch"
    reuses_outputs = False
    any_cpu = True

    def __init__(self, path: Path, info: ModelInfo, options: BackendOptions) -> None:
        runtime = _import()
        if options.device.lower() not in {"", "cpu"}:
            raise UsageError(f"device='{options.device}' is not one of executorch's; choose cpu")
        program = find_program(path)
        try:
            self._program = runtime.load_program(str(program))
            self._method = self._program.load_method("forward")
            shape = tuple(int(s) for s in self._method.metadata.input_tensor_meta(0).sizes())
        except Exception as exc:  # RuntimeError with ExecuTorch's error code, KeyError without such a method
            raise TargetError(f"ExecuTorch cannot load '{path}': {exc}") from exc
        self.info, self.layout = info, info.layout
        self.input_shape = (1, info.channels, *info.imgsz)
        self.input_dtype = np.dtype(np.float32)
        if shape != self.input_shape:
            raise ArtifactError(f"'{path}' takes {shape}, its description says {self.input_shape}")

    @classmethod
    def on_cpu(cls, path: Path, device: str) -> bool:
        """See ``Backend.on_cpu``."""
        return True

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network; see ``Backend.run``."""
        import torch

        try:
            outputs = self._method.execute([torch.from_numpy(tensor)])
        except Exception as exc:
            raise TargetError(f"ExecuTorch failed: {exc}") from exc
        return tuple(np.asarray(output, np.float32) for output in outputs)

    def close(self) -> None:
        """Free the program."""
        del self._method, self._program

    @property
    def version(self) -> str:
        """Version of ExecuTorch."""
        return str(importlib.import_module("executorch.version").__version__)


def find_program(path: Path) -> Path:
    """The ``.pte`` of a folder, or the file itself.

    Raises:
        ArtifactError: There is none, or several.
    """
    programs = sorted(path.glob("*.pte")) if path.is_dir() else [path]
    if len(programs) != 1 or not programs[0].is_file():
        raise ArtifactError(f"'{path}' holds {len(programs)} .pte files where one is wanted; export it again")
    return programs[0]


def _import() -> Any:
    try:
        runtime = importlib.import_module("executorch.runtime").Runtime.get()
        importlib.import_module(QUANTIZED_KERNELS)
    except ImportError as exc:
        raise MissingRuntimeError("executorch", "executorch", "install it with: pip install executorch") from exc
    return runtime
