"""What people may ask of an exported graph besides the network."""

from __future__ import annotations

from typing import Any

from ...errors import UsageError
from ...options import option, option_model
from ..graph_form import GraphForm

_OF_NMS = ("conf", "iou", "multi_label")


@option_model
class GraphOptions:
    """What an exported graph does besides the network."""

    nms: bool = option(
        default=False,
        help="put non-maximum suppression into the exported graph, whose rows are detections then; onnxruntime, "
        "openvino and tensorrt",
    )
    conf: float | None = option(
        default=None,
        ge=0,
        le=1,
        help="with nms=true, the score that detections must be above; who runs the model can ask for more, never for "
        "less; 0.001 if not given",
    )
    iou: float | None = option(
        default=None,
        ge=0,
        le=1,
        help="with nms=true, overlap above which the weaker box of a class is dropped; 0.7 if not given",
    )
    multi_label: bool | None = option(
        default=None,
        help="with nms=true, whether a box may be found once for each class, as in validation (if not given), or only "
        "for its best one, as in prediction",
    )
    max_det: int | None = option(
        default=None, ge=1, help="with nms=true, rows of the output; the checkpoint's own (300) if not given"
    )

    batch: int = option(
        default=1,
        ge=1,
        le=1024,
        help="images that the exported graph takes at a time; onnxruntime, openvino and tensorrt",
    )
    dynamic: bool = option(
        default=False,
        help="leave the number of images open, not their size; onnxruntime and openvino. batch= then says how many "
        "Ultralytics gives it at most",
    )

    def __post_init__(self) -> None:
        given = [name for name in _OF_NMS if getattr(self, name) is not None]
        if given and not self.nms:
            raise UsageError(
                f"{', '.join(f'{name}=' for name in given)} of an export belong to NMS in its graph; pass nms=true as "
                "well, or leave them out"
            )

    @property
    def given(self) -> dict[str, Any]:
        """What was asked for, as keywords; nothing for the network alone."""
        return {k: v for k, v in vars(self).items() if v is not None} if self.form.asked else {}

    @property
    def form(self) -> GraphForm:
        """What was asked for, with defaults where nothing was said."""
        given = {name: getattr(self, name) for name in (*_OF_NMS, "max_det", "batch", "dynamic")}
        return GraphForm(self.nms, **{name: value for name, value in given.items() if value is not None})
