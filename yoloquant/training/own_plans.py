"""What training a portable plan is worth beside each runtime's own plan, which needs calibration alone.

Training says whether it beat the plan that it started from. A user of one runtime could have had that runtime's own
plan, which places quantization as this runtime wants it, for a minute of calibration: that is what training must beat.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..bridge.checkpoint import load_model
from ..bridge.host_model import HostModel
from ..data.dataset import ValidationSet
from ..errors import YoloquantError
from ..evaluation.bootstrap import BootstrapOptions
from ..evaluation.compare import Comparer
from ..evaluation.evaluate import EvaluateOptions, evaluate
from ..evaluation.torch_runner import TorchRunner
from ..quantization.artifact import Artifact
from ..quantization.ptq import quantize
from ..quantization.quantize_options import QuantizeOptions
from ..quantization.scheme import PORTABLE, Scheme
from ..quantization.simulate import simulate
from ..types import Progress
from .unlabelled import data_of_run

if TYPE_CHECKING:
    from .train import TrainResult

IMAGES = 64
"""Held-back images that are scored: fidelity is measured to about 0.01 on them."""
_FLOAT, _TRAINED = "fp32", "trained"


@dataclass(frozen=True)
class OwnPlans:
    """Scores of a trained portable plan and of calibrated plans of single runtimes, on the same held-back images.

    A score is the fidelity to the float model, less the size of the mean confidence shift.

    Attributes:
        trained: Of the trained plan.
        calibrated: Of each runtime's own plan, by its scheme.
        images: How many images.
    """

    trained: float
    calibrated: Mapping[str, float]
    images: int

    @property
    def better(self) -> dict[str, float]:
        """Plans that score better by calibration alone, the best first."""
        found = {name: score for name, score in self.calibrated.items() if score > self.trained}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def advice(self) -> str:
        """What to do about it, in one sentence."""
        where = f"{self.images} held-back images"
        if not self.better:
            best = max(self.calibrated.values(), default=0.0)
            return (
                f"no runtime's own plan does better by calibration alone on {where} (at most {best:.4f}, the trained "
                f"one {self.trained:.4f})"
            )
        scores = ", ".join(f"{name} {score:.4f}" for name, score in self.better.items())
        first = next(iter(self.better))
        return (
            f"calibration alone does better for {scores} than the trained portable plan ({self.trained:.4f} on "
            f"{where}): for these use 'yoloquant quantize scheme={first}' or train scheme={first}"
        )


def measured_advice(
    result: TrainResult,
    model: Any,
    *,
    data: str,
    schemes: Sequence[Scheme],
    options: QuantizeOptions,
    progress: Progress | None = None,
) -> str:
    """Which runtimes' own plans do better by calibration alone; the general advice if that cannot be measured.

    Args:
        result: What training of the portable plan left behind.
        model: See ``compare_own_plans``.
        data: What the user named for training.
        schemes: See ``compare_own_plans``.
        options: Likewise.
        progress: Likewise.
    """
    try:
        return compare_own_plans(
            result.artifact,
            model,
            data=data_of_run(result.folder, data),
            schemes=schemes,
            options=options,
            progress=progress,
        ).advice
    except YoloquantError as exc:
        return f"{result.advice} (not measured: {exc})"


def compare_own_plans(
    trained: Artifact,
    model: Any,
    *,
    data: str | os.PathLike[str],
    schemes: Sequence[Scheme],
    options: QuantizeOptions | None = None,
    images: int = IMAGES,
    progress: Progress | None = None,
) -> OwnPlans:
    """Calibrate the float model for single runtimes, and score that beside what was trained.

    Args:
        trained: What training of the portable plan left behind.
        model: The float model that training started from.
        data: Data yaml whose training images calibrate and whose held-back images are scored.
        schemes: The runtimes' own; the portable one is left out.
        options: How to calibrate; the input size is the trained one's.
        images: How many held-back images.
        progress: Called after every image.

    Raises:
        YoloquantError: The model or the data cannot be used.
    """
    base = options or QuantizeOptions()
    source = model if isinstance(model, HostModel) else load_model(model, allow_unsafe=base.allow_unsafe)
    own = [scheme for scheme in schemes if scheme.name != PORTABLE.name]
    calibrated = quantize(
        source.module,
        data=data,
        schemes=own,
        options=QuantizeOptions(
            # at the trained size: scores at two sizes could not be compared
            imgsz=trained.info.imgsz,
            calibration=base.calibration,
            ranges=base.ranges,
            max_det=base.max_det,
        ),
    )
    # not the images that calibrated, on which a range looks better than it is
    held_back = ValidationSet.open(os.fspath(data), trained.info).take(images)
    runners = {
        # the very module that was calibrated, so that nothing but the plans differs between the runners
        _FLOAT: TorchRunner(calibrated.graph.module, calibrated.info),
        _TRAINED: _simulated(trained, PORTABLE.name),
        **{scheme.name: _simulated(calibrated, scheme.name) for scheme in own},
    }
    evaluation = evaluate(runners, held_back, EvaluateOptions(baseline=_FLOAT), progress=progress)
    # no interval is asked for: resampling is kept to the fewest replicates that it takes
    comparer = Comparer(evaluation, BootstrapOptions(replicates=2))
    scores = {name: _score(comparer, name) for name in evaluation.records if name != _FLOAT}
    return OwnPlans(scores.pop(_TRAINED), scores, len(held_back))


def _simulated(artifact: Artifact, scheme: str) -> TorchRunner:
    # a shift of the class biases is part of what calibration alone gives; trained artifacts have learned theirs
    bias = dict(artifact.bias.get(scheme, {}))
    return TorchRunner(simulate(artifact.graph, artifact.plans[scheme], bias=bias), artifact.info)


def _score(comparer: Comparer, name: str) -> float:
    found = comparer.compare(name).comparison
    return found.fidelity.value - abs(found.confidence_shift)
