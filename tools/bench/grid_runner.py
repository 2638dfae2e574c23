"""Runs a plan in ONNX Runtime on its grid, every operation in float32: what ``simulate`` computes, but faster.

Quantize and dequantize pairs are kept (``session.disable_quant_qdq``), so that no integer kernel with rules of its own
takes part; sums are in another order than in PyTorch, which may move a value on the edge between two steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from yoloquant.graph.trace import Graph
from yoloquant.quantization.plan import Plan
from yoloquant.targets.base import Runner
from yoloquant.targets.onnx.emit import Emission, emit
from yoloquant.types import ExportedModel


class GridFile(Runner):
    """An exported Q/DQ file behind the Runner interface.

    Args:
        exported: The artifact.
        threads: Threads of ONNX Runtime.
    """

    def __init__(self, exported: ExportedModel, threads: int) -> None:
        self.info, self.layout = exported.info, exported.layout
        self._session = _session(exported.path.read_bytes(), threads)

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network; see ``Runner.infer``."""
        return tuple(self._session.run(None, {"images": image}))


class GridRunner(Runner):
    """The float graph, or a plan of it, behind the Runner interface; loaded on first use.

    Args:
        graph: The canonical graph.
        plan: A calibrated plan derived from it; None for the float model.
        threads: Threads of ONNX Runtime.
        bias: Bias corrections that belong to the plan.
    """

    def __init__(
        self, graph: Graph, plan: Plan | None, threads: int, bias: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self.graph, self.plan, self.threads, self.bias = graph, plan, threads, dict(bias or {})
        self.info, self.layout = graph.info, graph.info.layout
        self._session: Any = None

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network; see ``Runner.infer``."""
        if self._session is None:
            model = emit(self.graph, self.plan, Emission(), bias=self.bias)
            self._session = _session(model.SerializeToString(), self.threads)
        return tuple(self._session.run(None, {"images": image}))


def _session(model: bytes, threads: int) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = threads, 3
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
