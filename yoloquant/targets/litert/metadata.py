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
from pathlib import Path
from typing import Any

from ...errors import ArtifactError
from ...runtime.core.damaged import UNREADABLE

HOST_ENTRY = "metadata.json"
OWN_ENTRY = "yoloquant.json"
FORMAT = 1


def pack(flatbuffer: bytes, host: Mapping[str, Any], own: Mapping[str, Any]) -> bytes:
    """Append both entries to a flatbuffer; equal input gives equal bytes.

    Args:
        flatbuffer: The network.
        host: What Ultralytics' LiteRT backend reads.
        own: This project's entry; the network's size and hash are added.

    Returns:
        The file's bytes.
    """
    seal = {"format": FORMAT, "flatbuffer_bytes": len(flatbuffer), "sha256": hashlib.sha256(flatbuffer).hexdigest()}
    stream = io.BytesIO(flatbuffer)
    # Readers of zip archives begin at the end of a file, those of flatbuffers at its start: each finds its own.
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
    except OSError as exc:
        raise ArtifactError(f"'{path}' cannot be read ({exc.strerror}); export it again") from exc
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            own = dict(json.loads(archive.read(OWN_ENTRY)))
        version, size, digest = own["format"], int(own["flatbuffer_bytes"]), own["sha256"]
    except (*UNREADABLE, TypeError) as exc:
        raise ArtifactError(f"'{path}' has no {OWN_ENTRY}, so yoloquant did not write it or it is damaged") from exc
    if version != FORMAT:
        raise ArtifactError(f"'{path}' has metadata format {version}; this release reads {FORMAT}")
    flatbuffer = content[:size]
    if hashlib.sha256(flatbuffer).hexdigest() != digest:
        raise ArtifactError(f"the network in '{path}' is not the one that was exported; export it again")
    return own, flatbuffer
