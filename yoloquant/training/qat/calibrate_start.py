"""Where training starts: a calibrated plan, and the scores that it must beat."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ultralytics.utils import LOGGER

from ...bridge.host_model import HostModel
from ...bridge.input_size import check_imgsz
from ...data.calibration import CalibrationOptions
from ...errors import UsageError
from ...graph.ops import INPUT
from ...graph.trace import Graph
from ...graph.traced_model import TracedModel
from ...quantization.artifact import Artifact
from ...quantization.insert import add_bias
from ...quantization.plan import Plan, Point, PointKind, Role
from ...quantization.ptq import quantize
from ...quantization.qparams import QuantSpec
from ...quantization.quantize_options import QuantizeOptions
from ...quantization.scheme import PORTABLE, weight_point_name
from ...quantization.score_shift import Shifts
from ...targets.schemes import AUTO, resolve_schemes
from .. import distributed as ranks
from ..task_trainer import unwrap_model
from . import checkpoint
from .history import EpochScores
from .prepare import corrected, current_plan
from .qat_options import QATOptions

if TYPE_CHECKING:
    from .trainer import QATTrainer


_WIDE = frozenset({Role.INPUT, Role.SCORE, Role.HEAD})


def calibrated(source: HostModel, options: QATOptions, data: str, imgsz: Any) -> tuple[Artifact, Plan]:
    """The plan that training starts from, with the model that it belongs to.

    Args:
        source: The float model; a checkpoint that carries a plan of the wanted scheme goes on from its ranges.
        options: Scheme, bits and calibration.
        data: Data yaml or folder whose training images calibrate.
        imgsz: Input size in pixels.

    Returns:
        An artifact with the traced graph, and its calibrated plan.

    Raises:
        UsageError: ``scheme`` names several schemes, or a checkpoint's plan is of another input size.
    """
    if options.scheme == AUTO:  # targets are known to ``run`` alone, and it has chosen by them
        options = replace(options, scheme=PORTABLE.name)
    if "," in options.scheme:
        raise UsageError(
            f"scheme={options.scheme} is not one scheme; training learns one, portable serves every runtime"
        )
    size = check_imgsz(imgsz, source.stride)
    if source.state.get("plans", {}).get(options.scheme):
        return _stored(source, options, size)
    # one process calibrates: ranges that differed in a bit would be different models
    if not ranks.is_first():
        nothing: tuple[str, Shifts, dict[str, Any]] = ("", {}, {})
        text, shifts, provenance = ranks.from_first(nothing)
        # as text: a float32 written as the shortest decimal reads back as the same float32
        plan = Plan.from_json(text)
        bias = {plan.scheme: shifts}
        return Artifact(TracedModel.of(source, size), {plan.scheme: plan}, bias, provenance), plan
    artifact = _calibrate(source, options, data, size)
    plan = artifact.plans[options.scheme]
    ranks.from_first((plan.to_json(), dict(artifact.bias.get(plan.scheme, {})), dict(artifact.provenance)))
    return artifact, plan


def _calibrate(source: HostModel, options: QATOptions, data: str, size: tuple[int, int]) -> Artifact:
    LOGGER.info(f"Calibrating the {options.scheme} plan on {options.images} training images...")
    # the same calibration as without training: what training must beat is what a user could have had
    artifact = quantize(
        source.module,
        data=data,
        schemes=resolve_schemes(options.scheme),
        options=QuantizeOptions(
            imgsz=size,
            calibration=CalibrationOptions(images=options.images),
            points=None if options.weight_bits == options.activation_bits == 8 else _Bits(options),
        ),
    )
    # quantize() was given the bare module; the result keeps the file's name and class names
    return replace(artifact, traced=artifact.traced.described_as(source))


def _stored(source: HostModel, options: QATOptions, size: tuple[int, int]) -> tuple[Artifact, Plan]:
    artifact = Artifact.from_host(source)
    if artifact.info.imgsz != size:
        raise UsageError(
            f"'{source.source}' carries a plan for imgsz={artifact.info.imgsz}, training asks for {size}; train at "
            "that size, or start from the float checkpoint"
        )
    plan = artifact.plans[options.scheme]
    # the narrowest count: outer layers, the input and head outputs keep eight (``_Bits``)
    bits = min(p.spec.bits for p in plan.weights), min(p.spec.bits for p in plan.activations)
    wanted = options.weight_bits, options.activation_bits
    if bits != wanted:
        raise UsageError(
            f"'{source.source}' carries a plan that training goes on from: weight_bits={bits[0]}, "
            f"activation_bits={bits[1]}; asked for are {wanted[0]} and {wanted[1]}. Start from the float checkpoint "
            "for that"
        )
    return artifact, plan


class _Bits:
    """Narrows points to fewer bits.

    The network's input, raw head outputs and prescribed ranges keep theirs, and so do the weights of the first and of
    the last layers, as is usual below eight bits (arXiv 1902.08153, section 3).
    """

    def __init__(self, options: QATOptions) -> None:
        self.options = options

    def __call__(self, graph: Graph, point: Point) -> QuantSpec:
        if point.fixed or point.role in _WIDE or point.name in _outer_weights(graph):
            return point.spec
        weight = point.kind is PointKind.WEIGHT
        return replace(point.spec, bits=self.options.weight_bits if weight else self.options.activation_bits)


def _outer_weights(graph: Graph) -> frozenset[str]:
    first = (op for op in graph.ops.values() if op.weight and INPUT in op.inputs)
    return frozenset(weight_point_name(op) for op in (*first, *graph.heads))


def score_calibrated(trainer: QATTrainer) -> None:
    """Score the calibrated model before the first step, keep it as best.pt until training beats it, and go on from it.

    It is scored with its class scores shifted, as calibration alone would be exported. Training starts from the shifted
    biases, which are the model's own from then on.
    """
    with corrected(trainer.ema.ema, trainer.corrections):
        scores = trainer.score(epoch=0)
    if scores is not None:  # another process of the run than the first has none
        _keep(trainer, scores)
    for model in (unwrap_model(trainer.model), trainer.ema.ema):
        add_bias(model, trainer.corrections)


def _keep(trainer: QATTrainer, scores: EpochScores) -> None:
    trainer.fitness = trainer.best_fitness = scores.fitness
    # What training has to beat. Patience counts from the first epoch, as Ultralytics counts; without a score to beat it
    # would begin anew with every epoch that finds nothing.
    trainer.stopper.best_fitness, trainer.stopper.best_epoch = scores.fitness, 1
    trainer.history.add(scores, current_plan(trainer.ema.ema, trainer.plan))
    trainer.metrics = {**trainer.metrics, **scores.metrics()}
    # "epoch 0 of training" in the checkpoint's provenance, which counts from 1
    trainer.epoch = -1
    checkpoint.write(trainer, trainer.best, trainer.plan, bias=trainer.artifact.bias.get(trainer.plan.scheme))
    trainer.epoch = trainer.start_epoch
    LOGGER.info(scores.line(None))
