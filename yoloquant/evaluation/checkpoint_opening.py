"""Opens the float model of a checkpoint that is judged beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..bridge.checkpoint import load_model
from ..errors import UsageError
from ..graph.traced_model import TracedModel
from ..runtime.core.runner import Runner
from ..types import ModelInfo


class CheckpointOpening:
    """An ``Opening`` that workers are sent with the traced network: a trace, and Ultralytics for it, take seconds.

    Args:
        path: The checkpoint.
        info: The model that stands beside it.
        threads: Threads of PyTorch.
    """

    def __init__(self, path: Path, info: ModelInfo, threads: int) -> None:
        self.path, self.info, self.threads = path, info, threads
        self._opened: Runner | None = None

    def __call__(self) -> Runner:
        """Open it.

        Raises:
            UsageError: It has another task or other classes.
            YoloquantError: It cannot be read or traced.
        """
        if self._opened is None:
            from .torch_runner import TorchRunner

            traced = TracedModel.of(load_model(self.path), self.info.imgsz)
            if traced.info.names != self.info.names or traced.info.task is not self.info.task:
                raise UsageError(f"checkpoint '{self.path.name}' has another task or other classes than the FP32 model")
            self._opened = TorchRunner(traced.graph.module, traced.info, self.threads)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs."""
        try:
            self()
        except Exception:
            # the other process comes to the same error, and says so in the model's row
            self._opened = None
        return dict(vars(self))
