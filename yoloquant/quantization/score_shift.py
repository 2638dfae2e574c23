"""Put class scores back where the float model has them: one number per head, fitted on unlabelled images.

Thousands of rounding errors in front of the class logits move all of them a little the same way, and confidences
shrink or grow with them. The number added to a head's logits is the one with the least cross-entropy between the plan's
probabilities and the float model's, over the scores that the float model does not rule out; there both sum to the same.
Which scores count must not depend on the plan: noise lifts scores of nothing above any threshold, and a sum that holds
them pays for each with the confidence of what is really there. The number is part of the last convolution's bias, so it
costs nothing on the device and is the same in the simulation and in every export. A factor is not fitted: against noise
the best factor is below 1, which shrinks the scores that are sure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..graph.trace import Graph
from .insert import copy_module
from .plan import Plan
from .raw_heads import end_at_heads
from .seen_scores import SeenScores, class_layers
from .simulate import simulate, with_rounded_weights

IMAGES = 16
"""Calibration images that it is fitted on; with eight a level's number varies by 0.1 logits with their choice."""
LARGEST = 1.0
"""Logits; a plan that is farther off than this has another fault, which a shift would hide."""
_HALVINGS = 24  # of the interval that the shift is looked for in: to 1e-7

Shifts = dict[str, np.ndarray]
"""Bias corrections by module path, float32 (channels,)."""


@dataclass
class _Logits:
    """The same class logits of one layer with and without the plan, (scores,) per image and level."""

    exact: list[Tensor] = field(default_factory=list)
    quantized: list[Tensor] = field(default_factory=list)

    def add(self, exact: Tensor, quantized: Tensor) -> None:
        """Take the scores of one map in which the float model sees something; (1, classes, height, width)."""
        self.take(SeenScores.of(exact), quantized)

    def take(self, exact: SeenScores, quantized: Tensor) -> None:
        """The same, where it is known already what the float model sees."""
        self.exact.append(exact.values)
        self.quantized.append(exact.of_plan(quantized))

    def shift(self) -> float:
        """What to add to the quantized logits; 0 where nothing was seen."""
        # sums of probabilities over thousands of scores decide a bisection to 1e-7: float32 has not the digits
        exact, quantized = torch.cat(self.exact).double(), torch.cat(self.quantized).double()
        wanted = float(exact.sigmoid().sum())
        if not exact.numel() or float((quantized + LARGEST).sigmoid().sum()) < wanted:
            return 0.0 if not exact.numel() else LARGEST
        low, high = -LARGEST, LARGEST
        for _ in range(_HALVINGS):  # the sum of probabilities grows with the shift
            middle = (low + high) / 2
            low, high = (middle, high) if float((quantized + middle).sigmoid().sum()) < wanted else (low, middle)
        return (low + high) / 2


def score_shifts(
    graph: Graph,
    plans: Sequence[Plan],
    images: Iterable[np.ndarray],
    *,
    known: Sequence[Sequence[SeenScores]] = (),
    progress: Callable[[int], None] | None = None,
) -> dict[str, Shifts]:
    """Fit the shifts of several plans in one pass of the float model.

    Args:
        graph: The canonical graph.
        plans: Calibrated plans derived from it.
        images: Calibration images, float32 (1, channels, height, width), 0 to 1, letterboxed.
        known: What the float model sees in the first of them, where an earlier pass has found it: see ``seen``.
        progress: Called after each image with the count so far.

    Returns:
        By scheme, bias corrections of the last class convolutions; empty for models without class sigmoids.
    """
    # Where scores come from a softmax a shift of all logits would change nothing.
    layers = class_layers(graph)
    if not layers or not plans:
        return {}
    # the class logits alone are compared: boxes and the decode would only take time
    heads = [head for head, path in layers]
    exact = end_at_heads(graph, copy_module(graph), heads)
    # some schemes differ in what their runtimes look for alone
    alike = {plan.computed: plan for plan in plans}
    simulated = {
        key: with_rounded_weights(end_at_heads(graph, simulate(graph, plan), heads)) for key, plan in alike.items()
    }
    logits: dict[Hashable, dict[str, _Logits]] = {key: defaultdict(_Logits) for key in alike}
    with torch.inference_mode():
        for count, image in enumerate(images, start=1):
            x = torch.from_numpy(np.ascontiguousarray(image, np.float32))
            reference = known[count - 1] if count <= len(known) else [SeenScores.of(each) for each in exact(x)]
            for key, module in simulated.items():
                for (_, path), one, other in zip(layers, reference, module(x), strict=True):
                    logits[key][path].take(one, other)  # a layer that several levels share gets one number
            if progress:
                progress(count)
    found = {key: _as_bias(graph, seen) for key, seen in logits.items()}
    return {plan.scheme: dict(found[plan.computed]) for plan in plans}


def with_note(plan: Plan, shifts: Mapping[str, np.ndarray]) -> Plan:
    """The plan with a sentence on what its class scores, or the results of its layers, are moved by."""
    if not shifts:
        return plan
    if any(np.ptp(value) for value in shifts.values()):
        note = f"the results of {len(shifts)} layers are moved channel by channel to the float model's, in their biases"
        return replace(plan, notes=(*plan.notes, note))
    values = ", ".join(f"{float(value[0]):+.3f}" for value in shifts.values())
    return replace(plan, notes=(*plan.notes, f"class scores are moved by {values} logits, in the last biases"))


def _as_bias(graph: Graph, logits: Mapping[str, _Logits]) -> Shifts:
    found = {path: seen.shift() for path, seen in logits.items()}
    sizes = {path: graph.module.get_parameter(f"{path}.bias").shape for path in found}
    return {path: np.full(sizes[path], value, np.float32) for path, value in found.items()}
