"""What every artifact carries besides the model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from ..quantization.artifact import Artifact
    from ..quantization.plan import Plan


def ultralytics_metadata(artifact: Artifact) -> dict[str, Any]:
    """The keys that ``ultralytics.YOLO(path)`` reads from an export."""
    info = artifact.info
    data: dict[str, Any] = {
        "description": "quantized by yoloquant",
        "author": "yoloquant",
        "version": __version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "stride": info.stride,
        "task": info.task.value,
        "batch": 1,
        "imgsz": list(info.imgsz),
        "names": dict(enumerate(info.names)),
        "args": {"batch": 1},
        "channels": info.channels,
        "end2end": info.end2end,
    }
    if info.kpt_shape is not None:
        data["kpt_shape"] = list(info.kpt_shape)
    return data


def provenance_json(artifact: Artifact, plan: Plan | None) -> str:
    """Plan, versions and hashes as one JSON text."""
    return json.dumps({**artifact.metadata(), "plan": plan.to_dict() if plan else None}, default=str)
