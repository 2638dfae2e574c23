"""What the first result of a file holds besides its box, which says of what task its model was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runtime.io.coco_results import FURTHER

READ = 16 << 20
"""Bytes of a file that are looked at: one image's masks take a thousandth."""


def further_parts(path: Path) -> tuple[str, ...]:
    """Names of what results hold besides boxes: masks, keypoints or rotated boxes; empty if nothing, or not known."""
    known = {name: name for name in FURTHER} | {called: name for name, (called, _) in FURTHER.items()}
    first = _first(path)
    return tuple(dict.fromkeys(known[key] for key in first if key in known and first[key]))


def _first(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            text = stream.read(READ).decode("utf-8", "replace")
        # of a list, or of lines; inside an annotation file nothing is found, and its results are read as boxes
        found, _ = json.JSONDecoder().raw_decode(text, max(text.find("{"), 0))
    except (OSError, ValueError, RecursionError):
        return {}  # it is refused where it is read
    return found if isinstance(found, dict) else {}
