"""What a pruned layer will cost in a runtime, predicted from profiles of a few pruned models.

A layer's time is fitted as ``fixed + a * multiplications + b * output channels`` with non-negative coefficients, over
the unpruned model and the same model at a few uniform widths, each built and profiled in the runtime that counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .cost import CostModel, LayerCost

# As many as the fit has coefficients and one more; each costs an export and a profile.
WIDTHS = (1.0, 0.75, 0.5, 0.25)
"""Shares of every group's units that are left in the models which are profiled."""


@dataclass(frozen=True)
class Sample:
    """One profiled model.

    Attributes:
        kept: Units left of every group.
        ms: Milliseconds by the name of the layer's weight.
    """

    kept: Mapping[str, int]
    ms: Mapping[str, float]


class LayerLatency:
    """Milliseconds as a function of the units that are left.

    Args:
        costs: Multiplications of the model.
        samples: Profiled models; at least one.
    """

    def __init__(self, costs: CostModel, samples: Sequence[Sample]) -> None:
        self._costs = costs
        sizes = [{c.weight: c for c in costs.layers(s.kept)} for s in samples]
        self._fits = {
            name: _fit([size[name] for size in sizes], [s.ms[name] for s in samples])
            for name in sizes[0]
            if all(name in s.ms for s in samples)
        }
        known = set(self._fits)
        # what no layer explains (resizes, the decode) hardly depends on widths; the median, since profiles scatter
        self._rest = float(np.median([sum(ms for name, ms in s.ms.items() if name not in known) for s in samples]))

    def layers(self, kept: Mapping[str, int]) -> tuple[LayerCost, ...]:
        """Every layer with its predicted milliseconds before and after; None where the runtime did not tell."""
        return tuple(
            replace(c, ms=(self._of(c, 0), self._of(c, 1))) if c.weight in self._fits else c
            for c in self._costs.layers(kept)
        )

    def __call__(self, kept: Mapping[str, int]) -> float:
        """Milliseconds of the whole network."""
        return self._rest + sum(self._of(c, 1) for c in self._costs.layers(kept) if c.weight in self._fits)

    def _of(self, layer: LayerCost, when: int) -> float:
        return float(_features(layer, when) @ self._fits[layer.weight])


def _features(layer: LayerCost, when: int) -> np.ndarray:
    return np.array([1.0, layer.macs[when] / max(layer.macs[0], 1), layer.outputs[when] / max(layer.outputs[0], 1)])


def _fit(layers: Sequence[LayerCost], ms: Sequence[float]) -> np.ndarray:
    from scipy.optimize import nnls

    # non-negative: with four noisy samples least squares would give layers that get faster the wider they are
    coefficients, _ = nnls(np.stack([_features(layer, 1) for layer in layers]), np.array(ms))
    return np.asarray(coefficients)
