"""What every artifact carries besides the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ArtifactError
from ..io import parse_yaml
from .graph_form import PLAIN, GraphForm

if TYPE_CHECKING:
    from ..quantization.artifact import Artifact
    from ..quantization.plan import Plan

METADATA = "metadata.yaml"
"""Where Ultralytics looks for it in an artifact that is a folder."""


def ultralytics_metadata(artifact: Artifact, graph: GraphForm = PLAIN) -> dict[str, Any]:
    """The keys that ``ultralytics.YOLO(path)`` reads from an export.

    Args:
        artifact: The model.
        graph: What its graph does besides the network.
    """
    info = graph.described(artifact.info)
    data: dict[str, Any] = {
        "description": "quantized by yoloquant",
        "author": "yoloquant",
        "version": __version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "stride": info.stride,
        "task": info.task.value,
        # of an open number of images: as many as are given at a time
        "batch": graph.batch,
        "imgsz": list(info.imgsz),
        "names": dict(enumerate(info.names)),
        # Ultralytics' backend reads it to know whether NMS is part of the model; never that it is dynamic, by which it
        # means images of any size
        "args": {"batch": graph.batch, **({"nms": True} if graph.nms else {})},
        "channels": info.channels,
        "end2end": info.end2end,
    }
    if info.kpt_shape is not None:
        data["kpt_shape"] = list(info.kpt_shape)
    return data


def provenance_json(artifact: Artifact, plan: Plan | None) -> str:
    """Plan, versions and hashes as one JSON text."""
    return json.dumps({**artifact.metadata(), "plan": plan.to_dict() if plan else None}, default=str)


def read_folder_metadata(folder: Path) -> dict[str, Any]:
    """What this project wrote beside the model of an artifact that is a folder: provenance and plan.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    try:
        data = parse_yaml((folder / METADATA).read_text(encoding="utf-8"))
        found: dict[str, Any] = json.loads(data["yoloquant"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as exc:
        raise ArtifactError(f"'{folder}' has no readable {METADATA} of yoloquant ({exc!r}); export it again") from exc
    return found
