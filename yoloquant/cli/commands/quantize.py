"""``yoloquant quantize``."""

from __future__ import annotations

from pathlib import Path

from ...io import output_folder
from ...options import Text, option, option_model
from ...options.shared import CheckpointFolder, Schemes, TrainedCheckpoint
from ...quantization.quantize_options import QuantizeOptions
from ..parser import Call
from ..progress import bar


@option_model
class QuantizeCall:
    """What is quantized, and where to."""

    model: TrainedCheckpoint
    data: Text = option(help="data yaml (a path, or a name such as coco128.yaml), or a folder of images")
    scheme: Schemes = ("auto",)
    output: CheckpointFolder = None


PARTS = (QuantizeCall, QuantizeOptions)


def run(call: Call) -> int:
    """Calibrate, save, and say how to go on."""
    from ... import api

    own = call[QuantizeCall]
    model = Path(own.model)
    folder = model.parent
    if own.output or folder.is_dir():  # a missing model gets its own message
        folder = output_folder(own.output or folder)
    # beside the checkpoint, never over it
    path = folder / f"{model.stem}_int8.pt"
    with bar("calibrating") as progress:
        artifact = api.quantize(
            own.model, data=own.data, scheme=own.scheme, options=call[QuantizeOptions], progress=progress
        )
    artifact.save(path)
    print(f"saved {path}: the float weights and the INT8 plans {', '.join(artifact.plans)}")
    print("it still runs as the float model; exporting makes INT8 of it")
    print(f"next: yoloquant export {path} targets=all")
    return 0
