"""What Ultralytics reads from an export, whatever format it is stored in."""

from __future__ import annotations

from typing import Any, Dict

from .model_info import ModelInfo


def drop_in_metadata(info: ModelInfo, *, version: str = "", batch: int = 1, nms: bool = False) -> Dict[str, Any]:
    """The keys that ``ultralytics.YOLO(path)`` reads.

    Args:
        info: The model.
        version: Of the package that wrote the export; left out if empty.
        batch: Images that the graph takes at a time.
        nms: Whether suppression is part of the graph.
    """
    data = {
        "description": "quantized by yoloquant",
        "author": "yoloquant",
        **({"version": version} if version else {}),
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "stride": info.stride,
        "task": info.task.value,
        "batch": batch,
        "imgsz": list(info.imgsz),
        "names": dict(enumerate(info.names)),
        # Ultralytics' backend reads it to know whether NMS is part of the model; never that it is dynamic, by which it
        # means images of any size
        "args": {"batch": batch, **({"nms": True} if nms else {})},
        "channels": info.channels,
        "end2end": info.end2end,
    }
    return data if info.kpt_shape is None else {**data, "kpt_shape": list(info.kpt_shape)}
