"""``yoloquant train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...bridge.checkpoint import check_path
from ...bridge.data_file import check_data_file
from ...errors import UsageError
from ...options import Text, TextOrNone, option, option_model
from ...training.arguments import PREFIX
from ...training.qat.qat_options import QATOptions
from ..parser import Call
from ..show import print_next_export

if TYPE_CHECKING:
    from ...training.train import TrainResult


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
    own_plans: bool = option(
        default=True,
        help="calibrate each runtime's own plan too, and say which does better than a portable plan that was trained",
    )


PARTS = (TrainCall, QATOptions)


def run(call: Call) -> int:
    """Train, and say whether it helped."""
    from ... import api

    own = call[TrainCall]
    check_path(Path(own.model))  # before PyTorch is imported, which takes seconds
    if own.data:
        check_data_file(own.data)
    elif not call.extra.get("resume"):  # a run that is resumed knows its own
        raise UsageError("training needs data=<data yaml or folder of images>")
    # 'prune_amount=0.5' alone is a wish to prune
    prunes = own.prune is not None or any(key.startswith(PREFIX) for key in call.extra)
    # beside pruning only if an option of it was given: its defaults alone are nobody's wish
    quantizes = not prunes or bool(set(call.given) - {"model", "data", "prune", "own_plans"})
    result = api.train(
        own.model, data=own.data, qat=call[QATOptions] if quantizes else None, prune=own.prune, **call.extra
    )
    if not result.quantized:
        print(f"pruned and fine-tuned: {result.best}")
        print(f"fitness {result.score:.4f}, of the unpruned model {result.score_calibrated:.4f}")
        # a resumed run knows its data itself
        print(f"next: yoloquant train {result.best} data={own.data or '<data yaml>'} preset=fast")
        return 0
    print(f"{'trained' if result.improved else 'training did not help; kept the calibrated ranges:'} {result.best}")
    print(f"score on held-back images: {result.score:.4f}, calibrated {result.score_calibrated:.4f}")
    if result.advice:
        # of another start, or of fewer bits, there is nothing to compare with
        alike = own.own_plans and not prunes and "resume" not in call.extra and not call[QATOptions].missing_bits
        print(f"note: {_advice(own, call[QATOptions], result) if alike else result.advice}")
    print(f"plots and results: {result.folder}")
    print_next_export(result.best, (result.scheme,))
    return 0


def _advice(own: TrainCall, options: QATOptions, result: TrainResult) -> str:
    """Advice about every runtime."""
    from ...data.calibration import CalibrationOptions
    from ...quantization.quantize_options import QuantizeOptions
    from ...targets.schemes import AUTO, resolve_schemes
    from ...training.own_plans import measured_advice

    chosen = QuantizeOptions(calibration=CalibrationOptions(images=options.images), allow_unsafe=options.allow_unsafe)
    return measured_advice(result, own.model, data=str(own.data), schemes=resolve_schemes(AUTO), options=chosen)
