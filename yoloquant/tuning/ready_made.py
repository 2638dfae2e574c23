"""Spaces that need no thought: what a person would vary first, by judgement; no study has ranked the values yet."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_PTQ = {
    "calibration.images": "32|64|128",
    "calibration.seed": "0|1|2",
    # not entropy, which left the least fidelity by far on three models: docs/benchmarks/tune.md, docs/concepts/plans.md
    "ranges.activation": "mse|percentile|minmax",
    "ranges.pre_activation": "mse_silu|mse|percentile|minmax",
    "ranges.score": "mse_sigmoid|mse|minmax",
    "ranges.head": "mse|percentile|minmax",
    "ranges.weight": "mse|minmax",
    "ranges.percentile": "99.9|99.99|99.999",
    "ranges.output_aware": "true|false",
    "scheme": "auto|portable",
}
_QAT = {
    "train.qat.loss": "distill|both",
    "train.qat.range_lr": "log:1e-4..1e-2",
    "train.qat.learn_heads": "false|true",
    "train.qat.learn_offset": "false|true",
    "train.qat.damping": "0|0.01|0.1",
    "train.arguments.lr0": "log:1e-7..1e-5",
}
_PRUNE = {
    "prune.options.amount": "0.2..0.6",
    "prune.options.criterion": "taylor|l2|bn",
    "prune.options.scope": "global|uniform",
    "prune.options.max_ratio": "0.6..0.9",
    "prune.options.feature_weight": "0|4|12",
    "prune.arguments.lr0": "log:1e-4..1e-2",
}

_ALL = {**_PRUNE, **_QAT, **{k: v for k, v in _PTQ.items() if k != "scheme"}}  # training fixes the scheme

SPACES: Mapping[str, Mapping[str, str]] = MappingProxyType({"ptq": _PTQ, "qat": _QAT, "prune": _PRUNE, "all": _ALL})
