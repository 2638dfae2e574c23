"""What every artifact carries besides the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ArtifactError
from ..io import parse_yaml
from ..runtime.core.drop_in_metadata import drop_in_metadata
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
    # of an open number of images: as many as are given at a time
    return drop_in_metadata(graph.described(artifact.info), version=__version__, batch=graph.batch, nms=graph.nms)


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
