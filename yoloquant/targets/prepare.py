"""From whatever checkpoint a user has to a quantized model with the ranges that targets need."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UsageError
from .base import FLOAT, WEIGHTS_ALONE, Target
from .export import complete
from .schemes import needed_schemes

if TYPE_CHECKING:  # listing targets imports this package, and must load no torch
    from ..bridge.host_model import HostModel
    from ..graph.trace import Graph
    from ..quantization.artifact import Artifact
    from ..quantization.quantize_options import QuantizeOptions
    from ..types import Progress

FIXED = ("imgsz", "scheme", "native_ranges", "float_layers", "precision")
"""Options that a quantized checkpoint has decided already."""
ALWAYS = ("allow_unsafe", "cache")
"""Options that also say how it is read and exported."""
OF_FLOAT = ("imgsz", "max_det", "seed")
"""Options that say something about a float model, too; a recipe has a seed for all of its steps."""


class Stages(Protocol):
    """What is told of a stage that takes a while; a ``Listener`` is one."""

    def stage(self, name: str) -> AbstractContextManager[Progress | None]:
        """Surround a stage."""


class _NoStages:
    def stage(self, name: str) -> AbstractContextManager[Progress | None]:
        return nullcontext(None)


def prepare(
    model: Any,
    targets: Sequence[Target],
    *,
    data: str | os.PathLike[str] | None = None,
    scheme: str | Iterable[str] = "auto",
    options: QuantizeOptions,
    named: Iterable[str] = (),
    keep_going: bool = False,
    listener: Stages | None = None,
) -> Artifact:
    """Quantize a plain checkpoint, or calibrate what targets need and a quantized one lacks; float ones need neither.

    Args:
        model: An Artifact, the path of a checkpoint, or a live ``ultralytics.YOLO``.
        targets: What it will be exported to.
        data: Data yaml or folder whose images calibrate.
        scheme: Schemes of a plain checkpoint.
        options: How it is quantized.
        named: Flat names of the options that somebody gave, so that useless ones are refused.
        keep_going: Calibrate also where one of the targets cannot run the model; exporting reports it then.
        listener: Told of every stage.

    Raises:
        UsageError: A plain checkpoint comes without data, which only float precisions need none of; or an option would
            change nothing.
        PlanError: A target cannot run what the model is built of, or a precision that single layers are given.
        TargetError: A target does not build on this machine, or no models of this task.
    """
    from ..bridge.checkpoint import load_model
    from ..quantization.artifact import Artifact
    from ..quantization.ptq import quantize

    listener = listener or _NoStages()
    # what exporting would report in its results anyway does not end the work here
    refusing = () if keep_going else tuple(targets)
    if data is not None:  # before minutes of calibration, which no missing package is worth
        for target in refusing:
            target.require()
    artifact = model if isinstance(model, Artifact) else None
    source = model if isinstance(model, (str, os.PathLike)) else "the model"
    if artifact is None:
        with listener.stage("reading the model"):
            host = load_model(model, allow_unsafe=options.allow_unsafe)
        # Nothing of ours in it: a plain checkpoint.
        if not host.state:
            if data is None and targets and all(target.precision in FLOAT for target in targets):
                return _plain(host, str(source), targets, named, options, listener)
            if data is None:
                raise UsageError(
                    f"'{source}' is a plain checkpoint; pass data=<data yaml> to calibrate it, or run "
                    "'yoloquant quantize' first"
                )
            schemes = needed_schemes(scheme, targets)

            def accept(graph: Graph) -> None:
                for target in refusing:
                    target.require_task(graph.info.task)
                    target.check_graph(graph)
                _check_layers(graph, refusing, options)

            with listener.stage("calibrating") as progress:
                return quantize(model, data=data, schemes=schemes, options=options, progress=progress, accept=accept)
        artifact = Artifact.from_host(host)
    _refuse_useless(named, str(source), data is not None)
    if data is None:
        return artifact
    with listener.stage("calibrating what targets need and the checkpoint lacks") as progress:
        return complete(
            artifact, targets, data=data, options=replace(options, imgsz=artifact.info.imgsz), progress=progress
        )


def _plain(
    host: HostModel,
    source: str,
    targets: Sequence[Target],
    named: Iterable[str],
    options: QuantizeOptions,
    listener: Stages,
) -> Artifact:
    """The float model itself: float precisions need no image.

    Raises:
        UsageError: An option says how to quantize.
    """
    from ..graph.traced_model import TracedModel
    from ..quantization.artifact import Artifact

    useless = [name for name in named if name not in (*ALWAYS, *OF_FLOAT)]
    if useless:
        raise UsageError(
            f"{', '.join(f'{name}=' for name in useless)} cannot be used here: nothing is quantized for "
            f"{', '.join(target.wanted for target in targets)}; leave it out, or name a target with integers"
        )
    if options.max_det is not None:
        host.allow_detections(options.max_det)
    with listener.stage("tracing"):
        artifact = Artifact(TracedModel.of(host, options.imgsz))
        for target in targets:
            target.require()
            target.require_task(artifact.info.task)
            target.check_graph(artifact.graph)
    return artifact


def _check_layers(graph: Graph, targets: Iterable[Target], options: QuantizeOptions) -> None:
    """Refuse precisions of single layers that a target does not compute in.

    Raises:
        PlanError: A target cannot.
    """
    from ..quantization.layer_precision import give_precision
    from ..quantization.scheme import derive

    if not options.float_layers and not options.precision:
        return
    for target in targets:
        if target.precision not in FLOAT | WEIGHTS_ALONE:
            plan = derive(graph, target.scheme)
            target.check_layers(give_precision(graph, plan, options.float_layers, options.precision))


def _refuse_useless(named: Iterable[str], source: str, calibrates: bool) -> None:
    """Refuse options that a quantized checkpoint leaves nothing to do for.

    Raises:
        UsageError: One was given.
    """
    useless = [name for name in named if name not in ALWAYS and (name in FIXED or not calibrates)]
    if useless:
        why = "its input size and schemes are decided" if calibrates else "nothing is calibrated any more"
        raise UsageError(
            f"{', '.join(f'{name}=' for name in useless)} cannot be used here: '{source}' is quantized already, so "
            f"{why}; leave it out, or export the original checkpoint with data=<data yaml>"
        )
