"""Qualcomm's simulator of the Hexagon NPU in a process of its own, because it may crash or never end.

The process is started with ``{"path", "soc_model"}`` and says ``{"version", "shape"}``; see ``core.image_process``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Tuple

from ..core.image_process import ImageProcess, Network, answer_images
from .qnn_session import QnnSession

TIMEOUT_S = 600.0


class HtpSimulator(ImageProcess):
    """A network in the simulator.

    Args:
        path: The ``.onnx``.
        soc_model: Qualcomm's number of the chip.
        timeout_s: How long compiling, or one image, may take.

    Attributes:
        version: Version of Qualcomm's package.
        shape: Shape of the input.

    Raises:
        TargetError: The network cannot be loaded.
    """

    def __init__(self, path: Path, soc_model: int, *, timeout_s: float = TIMEOUT_S) -> None:
        request = json.dumps({"path": str(path.resolve()), "soc_model": soc_model})
        super().__init__(
            [sys.executable, "-m", __name__, request],
            _environment(),
            timeout_s=timeout_s,
            late="the NPU's simulator gave no answer within {seconds} s and was ended; use a smaller imgsz",
            ended="the NPU's simulator crashed (status {status}): {last}",
        )
        facts = json.loads(self.hello)
        self.version, self.shape = str(facts["version"]), tuple(facts["shape"])


def _environment() -> "dict[str, str]":
    root = Path(__file__).resolve().parents[__name__.count(".")]  # the process must import this very package
    search = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": search}


def _load() -> Tuple[bytes, Network]:
    given = json.loads(sys.argv[1])
    session = QnnSession(Path(given["path"]), int(given["soc_model"]))
    return json.dumps({"version": session.version, "shape": session.shape}).encode(), session.run


if __name__ == "__main__":
    sys.exit(answer_images(_load))
