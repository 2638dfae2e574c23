"""Which algorithm finds which range."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import AfterValidator

from ..options import option, option_model
from .plan import Role


class Algorithm(str, Enum):
    """How a range is chosen."""

    MINMAX = "minmax"  # everything seen
    PERCENTILE = "percentile"  # all but the rarest values
    MSE = "mse"  # least squared error of the values
    MSE_SILU = "mse_silu"  # least squared error after the SiLU that follows
    MSE_SIGMOID = "mse_sigmoid"  # least squared error after the sigmoid that follows; large values are never clipped
    ENTROPY = "entropy"  # least Kullback-Leibler divergence, as TensorRT's calibrator


FOR_WEIGHTS = frozenset({Algorithm.MINMAX, Algorithm.MSE})
OUTPUT_AWARE = frozenset({Algorithm.MSE, Algorithm.MSE_SILU})
"""What can count errors by what they do to the detections."""


def _for_weights(algorithm: Algorithm) -> Algorithm:
    if algorithm not in FOR_WEIGHTS:
        raise ValueError("weights can only use minmax and mse")
    return algorithm


ForWeights = Annotated[Algorithm, AfterValidator(_for_weights)]


@option_model
class CalibrationRecipe:
    """Which algorithm finds the range of which kind of point."""

    activation: Algorithm = option(
        default=Algorithm.MSE, help="for activations without a choice of their own", flat="range_activation"
    )
    pre_activation: Algorithm = option(
        default=Algorithm.MSE_SILU, help="for results that go into a SiLU", flat="range_pre_activation"
    )
    score: Algorithm = option(default=Algorithm.MSE_SIGMOID, help="for raw class scores", flat="range_score")
    head: Algorithm = option(default=Algorithm.MSE, help="for other raw head outputs", flat="range_head")
    weight: ForWeights = option(
        default=Algorithm.MSE, help="for weights, per channel: mse or minmax", flat="range_weight"
    )
    percentile: float = option(
        default=99.99, gt=50, le=100, help="share of values that percentile keeps, in percent", flat="percentile"
    )
    output_aware: bool = option(
        default=True,
        help="let mse and mse_silu count errors by what they do to the detections: by squared gradients, in front of a "
        "head's last layer by its result",
        flat="output_aware",
    )
    score_shift: bool = option(
        default=True,
        help="move class scores by one number per level, so that confidences stay the float model's; of a classifier "
        "every layer's results by one number per channel; part of a bias",
        flat="score_shift",
    )

    @property
    def needs_gradients(self) -> bool:
        """Whether a range depends on what errors do to the detections."""
        used = {self.activation, self.pre_activation, self.head}
        return self.output_aware and bool(used & OUTPUT_AWARE)

    def algorithm(self, role: Role) -> Algorithm:
        """The algorithm for a role."""
        return {
            Role.PRE_ACTIVATION: self.pre_activation,
            Role.SCORE: self.score,
            Role.HEAD: self.head,
            Role.WEIGHT: self.weight,
            Role.INPUT: Algorithm.MINMAX,
        }.get(role, self.activation)
