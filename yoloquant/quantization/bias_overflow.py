"""Keep biases representable: integer kernels add them as int32 steps of input scale times weight scale.

A channel whose weights have died (the published YOLO11n has one, with a bias of -1.9 beside weights of 1e-9) gets so
small a weight scale that its bias overflows 32 bits and is silently clipped. Such weights contribute nothing, so their
scale may grow until the bias fits.
"""

from __future__ import annotations

import logging

import numpy as np
from torch import nn

from ..graph.trace import Graph
from .plan import Plan
from .qparams import QParams
from .scheme import weight_point_name

logger = logging.getLogger(__name__)

LIMIT = 2**30  # half of what int32 holds: the products added to it need room too


def without_bias_overflow(graph: Graph, plan: Plan) -> Plan:
    """Raise weight scales where a bias would not fit into int32.

    Args:
        graph: The canonical graph.
        plan: A calibrated plan derived from it.

    Returns:
        The plan; weight points that had room stay as they are.
    """
    raised: dict[str, QParams] = {}
    parameters = dict(graph.module.named_parameters())
    for op in graph.ops.values():
        point = plan.by_name.get(weight_point_name(op)) if op.weight else None
        # the bias is stored in steps of input scale times weight scale, so both are needed
        source = plan.by_name.get(graph.root(op.inputs[0])) if op.inputs else None
        value = _bias(parameters, op.weight)
        if point is None or source is None or point.params is None or source.params is None or value is None:
            continue
        needed = np.abs(value).astype(np.float64) / (float(source.params.scale) * LIMIT)
        # one scale for the whole weight has to serve its largest bias
        floor = needed if point.params.scale.ndim else needed.max()
        scale = np.maximum(point.params.scale, floor).astype(np.float32)
        count = int((scale > point.params.scale).sum())
        if count:
            logger.info("%s: raised the scale of %d dead channels, whose bias would not fit", point.name, count)
            raised[point.name] = QParams(scale, point.params.zero_point)
    # the algorithm's name stays: it still chose every range but those of dead channels
    return plan.with_params(raised, {name: plan.by_name[name].algorithm for name in raised})


def _bias(parameters: dict[str, nn.Parameter], weight: str) -> np.ndarray | None:
    bias = parameters.get(f"{weight.rpartition('.')[0]}.bias")
    return None if bias is None else np.asarray(bias.detach().numpy(), np.float32)
