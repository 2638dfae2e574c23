"""``yoloquant quantize``."""

from __future__ import annotations

from pathlib import Path

from ...bridge.checkpoint import check_path
from ...bridge.data_file import check_data_file
from ...errors import UsageError
from ...io import output_folder
from ...options import PathOrNone, Text, option, option_model
from ...options.shared import Schemes, TrainedCheckpoint
from ...quantization.quantize_options import QuantizeOptions
from ..parser import Call
from ..progress import bar
from ..show import print_next_export


@option_model
class QuantizeCall:
    """What is quantized, and where to."""

    model: TrainedCheckpoint
    data: Text = option(help="data yaml (a path, or a name such as coco128.yaml), or a folder of images")
    scheme: Schemes = ("auto",)
    output: PathOrNone = option(
        default=None, help="folder for the result, or the .pt file to write; the checkpoint's folder if not given"
    )


PARTS = (QuantizeCall, QuantizeOptions)


def run(call: Call) -> int:
    """Calibrate, save, and say how to go on."""
    from ... import api

    own = call[QuantizeCall]
    model = Path(own.model)
    check_path(model)  # before PyTorch is imported, which takes seconds
    check_data_file(own.data)
    # beside the checkpoint, never over it
    path = Path(own.output or model.parent)
    if path.suffix != ".pt":
        path /= f"{model.stem}_int8.pt"
    if path.resolve() == model.resolve():
        raise UsageError(f"output='{own.output}' is the model itself; give another file, or a folder")
    output_folder(path.parent)
    with bar("calibrating") as progress:
        artifact = api.quantize(
            own.model, data=own.data, scheme=own.scheme, options=call[QuantizeOptions], progress=progress
        )
    artifact.save(path)
    print(f"saved {path}: the float weights and the INT8 plans {', '.join(artifact.plans)}")
    print("it still runs as the float model; exporting makes INT8 of it")
    print_next_export(path, artifact.plans)
    return 0
