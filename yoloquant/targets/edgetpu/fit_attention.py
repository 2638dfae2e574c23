"""A checkpoint whose attention is replaced: an ordinary Ultralytics file that is quantized like any other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from ...data.calibration import CalibrationOptions
    from .attention import Rewritten


def fit_attention(
    model: Any,
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str],
    imgsz: int | Sequence[int] | None = None,
    calibration: CalibrationOptions | None = None,
) -> Rewritten:
    """Replace a checkpoint's attention by convolutions fitted to training images, and write the result.

    Args:
        model: Path of a float checkpoint, or a live ``ultralytics.YOLO``.
        out: The ``.pt`` file to write. Plain Ultralytics loads it; its notes reach every Coral export made of it.
        data: Data yaml whose train split is used, or a folder of images.
        imgsz: Input size in pixels of the export; the checkpoint's own by default.
        calibration: Which images.

    Returns:
        The changed model, and how much of the attention its replacement explains.

    Raises:
        ModelError: The model cannot be read, or has no attention that can be replaced.
        DataError: The data are missing, or are the ones that will be scored.
        CalibrationError: There are too few images.
        UsageError: The input size is unknown or not supported.
        ArtifactError: The name does not end in ``.pt``.
        OutputError: The file cannot be written.
    """
    from ...bridge.checkpoint import load_model
    from ...bridge.input_size import check_imgsz
    from ...data.calibration import CalibrationOptions, calibration_set
    from ...quantization.artifact import save_checkpoint
    from .attention import replace_attention

    path = Path(out)
    # Told before the model is read and run over images.
    if path.suffix != ".pt":
        raise ArtifactError(f"got '{path.name}'; a checkpoint's name must end in .pt")
    host = load_model(model)
    wanted = imgsz or host.imgsz
    if wanted is None:
        raise UsageError(f"'{host.source}' does not tell its input size; give imgsz=<pixels>")
    size = check_imgsz(wanted, host.stride)
    images = calibration_set(data, calibration or CalibrationOptions())
    result = replace_attention(host.module, images.tensors(size, host.task))
    save_checkpoint(path, result.module, {"imgsz": max(size), "task": host.task.value})
    return result
