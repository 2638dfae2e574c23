"""Options that several models have: type, limits, help and aliases once, so that only defaults differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from .kinds import (
    LAYER_PRECISIONS,
    ImageSize,
    Names,
    NamesWithPrecision,
    PathOrNone,
    Text,
    TextOrNone,
    YesOrPath,
)
from .model import shared_option

TrainedCheckpoint = Annotated[Text, shared_option(help="trained checkpoint (.pt)")]
AnyCheckpoint = Annotated[Text, shared_option(help="checkpoint (.pt), quantized or plain")]
InputSize = Annotated[
    ImageSize, shared_option(help="input size in pixels: 640 or height,width; the checkpoint's own if not given")
]
AllowUnsafe = Annotated[bool, shared_option(help="read a checkpoint that can run code; only for files you trust")]
Targets = Annotated[
    Names,
    shared_option(help="targets or devices, separated by commas; all for every installed one", aliases=("target",)),
]
Schemes = Annotated[
    Names,
    shared_option(help="quantization schemes; auto gives every target its own, portable serves all alike"),
]
FloatLayers = Annotated[
    Names,
    shared_option(
        help="layers that stay in float where the runtime can mix, separated by commas; patterns with * are allowed, "
        "for instance model.23.cv3*. Names are those of 'yoloquant analyze kind=quant'"
    ),
]
LayerPrecisions = Annotated[
    NamesWithPrecision,
    shared_option(
        help="precision of single layers where the runtime can mix, for instance model.23.cv3*:fp16,model.4.cv1:w8a16; "
        "names and patterns as in float_layers",
        allowed=f"layers with one of {', '.join(LAYER_PRECISIONS)} behind a colon, or a mapping of them",
    ),
]
UnlabelledImages = Annotated[
    TextOrNone, shared_option(help="folder of images without labels to judge on, instead of data")
]
MeasuredSplit = Annotated[str, shared_option(help="split of the data yaml that they come from")]
DistillWeight = Annotated[float, shared_option(help="weight of the distillation loss", ge=0)]
DetectWeight = Annotated[float, shared_option(help="weight of the model's own loss", ge=0)]
ResultsFolder = Annotated[
    PathOrNone, shared_option(help="folder for the results; one beside the checkpoint if not given")
]
ClusterAddress = Annotated[TextOrNone, shared_option(help="with on=ray: the cluster; one is started here if not given")]
ReportFolder = Annotated[
    Path | None,
    # the command has its own output= beside it, whose default depends on what is judged
    shared_option(help="folder that the report is written to", flat="output", aliases=("report",), python_only=True),
]
KeptResults = Annotated[
    YesOrPath,
    shared_option(
        help="keep calibrations, exports and predictions, and take them again where all that decides them is the same; "
        "a folder to keep them in, or false",
        allowed="true, false, or a folder",
    ),
]
