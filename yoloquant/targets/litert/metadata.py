"""What a ``.tflite`` carries besides the network: a zip archive appended to the flatbuffer.

``metadata.json`` is what Ultralytics reads; ``yoloquant.json`` is this project's own entry. Runtimes ignore both, as
does every tool that follows the flatbuffer's root offset.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import ArtifactError
from ...types import ModelInfo, Task

HOST_ENTRY = "metadata.json"
OWN_ENTRY = "yoloquant.json"
FORMAT = 1


def host_metadata(info: ModelInfo, *, description: str = "", version: str = "") -> dict[str, Any]:
    """The keys that Ultralytics' backends read from an export.

    Args:
        info: The model.
        description: One line for people.
        version: Ultralytics' version.

    Returns:
        Plain data.
    """
    return {
        "description": description or f"YOLO {info.task.value} model in int8",
        "author": "yoloquant",
        "version": version,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "stride": info.stride,
        "task": info.task.value,
        "head": "Detect",
        "batch": 1,
        "imgsz": list(info.imgsz),
        "names": dict(enumerate(info.names)),
        "args": {"batch": 1, "quantize": 8},
        "channels": info.channels,
        "end2end": info.end2end,
    }


def pack(flatbuffer: bytes, host: Mapping[str, Any], own: Mapping[str, Any]) -> bytes:
    """Append both entries to a flatbuffer; equal input gives equal bytes."""
    seal = {"format": FORMAT, "flatbuffer_bytes": len(flatbuffer), "sha256": hashlib.sha256(flatbuffer).hexdigest()}
    stream = io.BytesIO(flatbuffer)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, data in ((HOST_ENTRY, dict(host)), (OWN_ENTRY, {**own, **seal})):
            entry = zipfile.ZipInfo(name)  # without a time of day, for reproducible files
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, json.dumps(data))
    return stream.getvalue()


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Read this project's entry and the flatbuffer that it describes.

    Args:
        path: The ``.tflite``.

    Returns:
        The entry and the flatbuffer's bytes.

    Raises:
        ArtifactError: The file is missing, was not written by this project, or its flatbuffer was changed since.
    """
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            own = json.loads(archive.read(OWN_ENTRY))
    except OSError as exc:
        raise ArtifactError(f"'{path}' cannot be read ({exc.strerror}); export it again") from exc
    except (zipfile.BadZipFile, KeyError, ValueError) as exc:
        raise ArtifactError(f"'{path}' has no {OWN_ENTRY}, so yoloquant did not write it or it is damaged") from exc
    if own.get("format") != FORMAT:
        raise ArtifactError(f"'{path}' has metadata format {own.get('format')}; this release reads {FORMAT}")
    flatbuffer = content[: own["flatbuffer_bytes"]]
    if hashlib.sha256(flatbuffer).hexdigest() != own["sha256"]:
        raise ArtifactError(f"the network in '{path}' is not the one that was exported; export it again")
    return own, flatbuffer


def info_to_dict(info: ModelInfo) -> dict[str, Any]:
    """Plain data of a model description."""
    return {**asdict(info), "task": info.task.value}


def info_from_dict(data: Mapping[str, Any]) -> ModelInfo:
    """Inverse of info_to_dict."""
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    values["task"] = Task(values["task"])
    return ModelInfo(**values)
