"""An artifact on another processor: a worker process that looks like any other runner."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .. import runtime
from ..runtime.core.image_process import ImageProcess
from ..runtime.core.runner import Runner
from ..types import ExportedModel, HeadLayout
from .processors import NATIVE, Launch

logger = logging.getLogger(__name__)

TIMEOUT_S = 600.0
PACKAGE = "yoloquant_runtime"  # what bundles call the runtime: it imports nothing outside itself


class EmulatedRunner(ImageProcess, Runner):
    """A network in a process of another processor; its outputs come back decoded.

    Args:
        exported: The artifact.
        backend: The runtime that opens it.
        launch: How the process is started.
        threads: Threads of one inference.
        timeout_s: How long starting, or one inference, may take.

    Raises:
        TargetError: The process does not come up.
    """

    def __init__(
        self, exported: ExportedModel, backend: str, launch: Launch, threads: int, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.info, self.layout = exported.info, exported.info.layout
        request = {
            "backend": backend,
            "path": str(exported.path.resolve()),
            "info": asdict(exported.info),
            "raw": exported.layout is HeadLayout.RAW,
            "threads": threads,
            "precision": "f32",  # bfloat16 beside kernels without VNNI is a processor that does not exist
            "exact_sums": launch.processor == NATIVE,  # elsewhere: what the file does in anybody's program
        }
        self._folder = tempfile.TemporaryDirectory(prefix="yoloquant-")
        # The runtime alone, as in a bundle: the whole package imports what the other processor's Python lacks.
        (Path(self._folder.name) / PACKAGE).symlink_to(Path(runtime.__file__).resolve().parent)
        super().__init__(
            [*launch.command, "-m", f"{PACKAGE}.apps.infer_worker", json.dumps(request)],
            launch.variables(self._folder.name),
            timeout_s=timeout_s,
            prefix=f"cpu={launch.processor}: ",
            late="no answer within {seconds} s; the process was ended",
            ended="the process ended with status {status}: {last}",
        )
        logger.info("cpu=%s: %s %s", launch.processor, backend, self.hello.decode())

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run one image there; see ``Runner.infer``. The outputs are decoded already.

        Raises:
            TargetError: The process has ended, or takes too long.
        """
        return self.run(np.ascontiguousarray(image, np.float32))

    def infer_picture(self, picture: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run one image that is prepared there: OpenCV resizes to other pixels on Arm than on x86.

        Raises:
            TargetError: The process has ended, or takes too long.
        """
        return self.run(np.ascontiguousarray(picture))

    def close(self) -> None:
        """End the process."""
        super().close()
        self._folder.cleanup()
