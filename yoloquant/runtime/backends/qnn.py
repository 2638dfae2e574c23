"""Snapdragon NPUs through ONNX Runtime and Qualcomm's provider; on x86-64 in Qualcomm's simulator of the NPU."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np

from ..core.model_info import ModelInfo
from ..device.htp_simulator import HtpSimulator
from ..device.qnn_session import QnnSession
from ..device.snapdragon import find_soc, is_simulated, why_not_here
from ..errors import ArtifactError, TargetError, UsageError
from ..tasks import spec_of
from .base import Backend, BackendOptions

COMPILED = "_qnn"
"""What stands behind a file's name where its network is compiled for one chip."""
_UNTIMED = "Qualcomm's simulator runs here, whose time says nothing of the NPU's; measure it on the device"


class QnnBackend(Backend):
    """A loaded ``.onnx`` whose whole graph runs on the NPU.

    Args:
        path: The file.
        info: The model that it holds.
        options: How it is run: ``raw``, ``device`` (on a PC the chip to simulate, such as ``8gen3``; on the chip itself
            ``npu`` or nothing). The simulator computes what the NPU computes, and says nothing of its time.

    Raises:
        MissingRuntimeError: ONNX Runtime or Qualcomm's provider is not installed.
        ArtifactError: The file does not exist or holds another model.
        TargetError: The NPU's compiler refuses it, or the simulator does not run on this machine.
        UsageError: There is no such chip.
    """

    name = "qnn"
    reuses_outputs = False

    def __init__(self, path: Path, info: ModelInfo, options: BackendOptions) -> None:
        if not path.is_file():
            raise ArtifactError(f"'{path}' does not exist; export it again")
        self._network = _open(path, options.device)
        self.info, self.layout, self._raw = info, info.layout, options.raw
        self.untimed = _UNTIMED if isinstance(self._network, HtpSimulator) else ""
        self.input_shape = (1, info.channels, *info.imgsz)
        self.input_dtype = np.dtype(np.float32)
        if self._network.shape != self.input_shape:
            shape = self._network.shape
            self.close()
            raise ArtifactError(f"'{path}' takes {shape}, its description says {self.input_shape}")

    @classmethod
    def form(cls, path: Path, device: str) -> Path:
        """On the chip: the form that was compiled for it, where there is one. The simulator compiles by itself."""
        compiled = compiled_path(path)
        return compiled if not is_simulated() and compiled.is_file() else path

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network; see ``Backend.run``."""
        return self._network.run(tensor)

    def decode(self, outputs: tuple[np.ndarray, ...], conf: float = 0.0) -> tuple[np.ndarray, ...]:
        """Raw levels, which this runtime returns channels first, to the drop-in layout."""
        return decode_channels_first(outputs, self.info, conf) if self._raw else outputs

    def close(self) -> None:
        """Free the network."""
        self._network.close()

    @property
    def version(self) -> str:
        """Version of Qualcomm's package."""
        return self._network.version


def decode_channels_first(outputs: tuple[np.ndarray, ...], info: ModelInfo, conf: float) -> tuple[np.ndarray, ...]:
    """Decode raw levels of shape (1, channels, height, width); see ``TaskSpec.decode_raw``."""
    levels = tuple(o.transpose(0, 2, 3, 1) if o.ndim == 4 else o for o in outputs)
    return spec_of(info.task).decode_raw(levels, info, conf)


def compiled_path(path: Path) -> Path:
    """Where the form of a file that is compiled for one chip is put."""
    return path.with_name(f"{path.stem}{COMPILED}{path.suffix}")


def _open(path: Path, device: str) -> Union[HtpSimulator, QnnSession]:
    if is_simulated():
        soc = find_soc(device)
        if reason := why_not_here():
            raise TargetError(reason)
        return HtpSimulator(path, soc.model)
    if device.lower() not in ("", "npu"):
        raise UsageError(f"device='{device}' is not one of qnn's; choose npu, or leave it out")
    return QnnSession(path, None)
