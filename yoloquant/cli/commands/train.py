"""``yoloquant train``."""

from __future__ import annotations

from ...options import Text, TextOrNone, option, option_model
from ...training.arguments import PREFIX
from ...training.qat.qat_options import QATOptions
from ..parser import Call


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
    prunes = own.prune is not None or any(key.startswith(PREFIX) for key in call.extra)
    quantizes = not prunes or bool(set(call.given) - {"model", "data", "prune"})
    result = api.train(
        own.model, data=own.data, qat=call[QATOptions] if quantizes else None, prune=own.prune, **call.extra
    )
    if not result.quantized:
        print(f"pruned and fine-tuned: {result.best}")
        print(f"fitness {result.score:.4f}, of the unpruned model {result.score_calibrated:.4f}")
        print(f"next: yoloquant train {result.best} data={own.data} preset=fast")
        return 0
    print(f"{'trained' if result.improved else 'training did not help; kept the calibrated ranges:'} {result.best}")
    print(f"score on held-back images: {result.score:.4f}, calibrated {result.score_calibrated:.4f}")
    if result.advice:
        print(f"note: {result.advice}")
    print(f"plots and results: {result.folder}")
    print(f"next: yoloquant export {result.best} targets=all")
    return 0
