"""``yoloquant train``."""

from __future__ import annotations

from typing import Any

from ...options import Text, TextOrNone, option, option_model
from ...training.qat.qat_options import QATOptions
from ..parser import Call

PREFIX = "prune_"


@option_model
class TrainCall:
    """What is trained, on what."""

    model: Text = option(help="trained checkpoint (.pt); last.pt of an interrupted run with resume=true")
    data: TextOrNone = option(default=None, help="data yaml, or a folder of images without labels")
    prune: float | None = option(
        default=None,
        gt=0,
        lt=1,
        help="share of the multiplications to remove first, fine-tuned for epochs=",
    )


PARTS = (TrainCall, QATOptions)


def run(call: Call) -> int:
    """Train, and say whether it helped."""
    from ... import api

    own = call[TrainCall]
    prune, arguments = prune_settings(own.prune, dict(call.extra))
    named = set(call.given) - {"model", "data", "prune"}
    quantizes = prune is None or bool(named)
    result = api.train(own.model, data=own.data, qat=call[QATOptions] if quantizes else None, prune=prune, **arguments)
    if not result.quantized:
        print(f"pruned and fine-tuned: {result.best}")
        print(f"fitness {result.score:.4f}, of the unpruned model {result.score_calibrated:.4f}")
        print(f"next: yoloquant train {result.best} data={own.data} preset=fast")
        return 0
    print(f"{'trained' if result.improved else 'training did not help; kept the calibrated ranges:'} {result.best}")
    print(f"score on held-back images: {result.score:.4f}, calibrated {result.score_calibrated:.4f}")
    print(f"plots and results: {result.folder}")
    print(f"next: yoloquant export {result.best} targets=all")
    return 0


def prune_settings(share: float | None, arguments: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Split a training command's arguments into options of pruning and the rest.

    Args:
        share: What ``prune=`` says.
        arguments: Everything that is handed on; ``prune_criterion=taylor`` and the like belong to pruning.

    Returns:
        Options of pruning, None if there are none; and Ultralytics' arguments.
    """
    ours = {k[len(PREFIX) :]: v for k, v in arguments.items() if k.startswith(PREFIX)}
    rest = {k: v for k, v in arguments.items() if not k.startswith(PREFIX)}
    if share is None and not ours:
        return None, rest
    return {**({} if share is None else {"amount": share}), **ours}, rest
