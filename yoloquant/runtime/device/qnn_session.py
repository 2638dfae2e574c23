"""ONNX Runtime with Qualcomm's provider (package ``onnxruntime-qnn``), on the NPU alone."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from ..errors import MissingRuntimeError, TargetError
from .snapdragon import WHERE

PROVIDER = "QNNExecutionProvider"
LIBRARY = "onnxruntime_qnn"


class QnnSession:
    """A network on the NPU, or in what simulates it. Nothing may fall back to the CPU.

    Args:
        path: The ``.onnx``.
        soc_model: Qualcomm's number of the chip to simulate or to compile for; None on the chip itself.
        settings: Further settings of the session.
        choices: Further choices of the provider.

    Attributes:
        version: Version of Qualcomm's package.
        shape: Shape of the input.

    Raises:
        MissingRuntimeError: A package is not installed.
        TargetError: The network cannot be loaded.
    """

    def __init__(
        self,
        path: Path,
        soc_model: Optional[int],
        settings: Optional[Mapping[str, str]] = None,
        choices: Optional[Mapping[str, str]] = None,
    ) -> None:
        runtime, provider = _import("onnxruntime"), _import(LIBRARY)
        self.version = str(provider.__version__)
        try:
            options = runtime.SessionOptions()
            options.log_severity_level = 3
            # a part on the CPU would be other arithmetic than the NPU's, and slow
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            for key, value in (settings or {}).items():
                options.add_session_config_entry(key, value)
            options.add_provider_for_devices(_devices(runtime, provider), _choices(provider, soc_model, choices or {}))
            self._session = runtime.InferenceSession(str(path), options)
        except TargetError:
            raise
        except Exception as exc:  # its exceptions share no public base class
            raise TargetError(f"the NPU's compiler refuses '{path.name}': {_sentence(exc)}") from exc
        found = self._session.get_inputs()[0]
        self._input = found.name
        self.shape: Tuple[int, ...] = tuple(found.shape)

    def run(self, tensor: np.ndarray) -> Tuple[np.ndarray, ...]:
        """Run the network.

        Raises:
            TargetError: It failed.
        """
        try:
            return tuple(np.asarray(o, np.float32) for o in self._session.run(None, {self._input: tensor}))
        except Exception as exc:
            raise TargetError(f"the NPU failed: {_sentence(exc)}") from exc

    def close(self) -> None:
        """Free the session."""
        del self._session


def _devices(runtime: Any, provider: Any) -> Any:
    with contextlib.suppress(Exception):  # registered already, by another session of this process
        runtime.register_execution_provider_library(PROVIDER, provider.get_library_path())
    found = [device for device in runtime.get_ep_devices() if device.ep_name == PROVIDER]
    if not found:
        raise TargetError(f"ONNX Runtime {runtime.__version__} finds no device of onnxruntime-qnn; use 1.24.2 or newer")
    return found


def _choices(provider: Any, soc_model: Optional[int], further: Mapping[str, str]) -> Dict[str, str]:
    choices = {"backend_path": str(provider.get_qnn_htp_path()), **further}
    # without it the simulator ends in error 1002 on a whole model
    return choices if soc_model is None else {**choices, "soc_model": str(soc_model)}


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        package = name.replace("_", "-")
        raise MissingRuntimeError(
            "qnn", name, f"install it with: pip install {package} (on a PC it needs {WHERE})"
        ) from exc


def _sentence(exc: Exception) -> str:
    return " ".join(str(exc).split())[-500:]
