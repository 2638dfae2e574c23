"""Runs a graph module in PyTorch: the FP32 baseline, and simulations of plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.core.runner import Runner
from ..types import ModelInfo
from .allocator import keep_freed_memory

if TYPE_CHECKING:
    from torch import fx


class TorchRunner(Runner):
    """A graph module behind the Runner interface.

    Args:
        module: A graph with the drop-in output, float or fake-quantized.
        info: The model's description.
        threads: Intra-operation threads of PyTorch; the process's own number if None.
    """

    def __init__(self, module: fx.GraphModule, info: ModelInfo, threads: int | None = None) -> None:
        import torch

        self.module, self.info, self.layout = module, info, info.layout
        self.threads = threads or torch.get_num_threads()
        keep_freed_memory()

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the module; see ``Runner.infer``."""
        import torch

        previous = torch.get_num_threads()
        # The number is the process's and not the model's: others in it get theirs back.
        if previous != self.threads:
            torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                result = self.module(torch.from_numpy(image))
        finally:
            if previous != self.threads:
                torch.set_num_threads(previous)
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        return tuple(np.asarray(o.numpy()) for o in _flat(outputs))


def _flat(values: object) -> list[Any]:
    return [x for v in values for x in _flat(v)] if isinstance(values, (tuple, list)) else [values]
