"""Engine files: a length, a JSON header, and TensorRT's plan.

The layout is Ultralytics' own (``BaseBackend.engine_header``): four bytes, little-endian, with the length of the JSON
text that follows, then the plan. Its keys are those that ``YOLO("x.engine")`` reads; ours lie under ``yoloquant``.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.drop_in_metadata import drop_in_metadata
from ..core.model_info import ModelInfo
from ..errors import ArtifactError, OutputError

FORMAT = 1
KEY = "yoloquant"
# Four bytes of any other file may read as a huge length; without a limit that much would be allocated.
_LARGEST_HEADER = 16 * 1024 * 1024
_ALIGN = 16  # also keeps the first bytes from looking like those of a program
_AGAIN = "build it again with build_engine force=true"


@dataclass(frozen=True)
class EngineFile:
    """The header of an engine file, and where its plan lies.

    Attributes:
        path: The file.
        metadata: The whole header.
        offset: Where the plan starts, in bytes.
    """

    path: Path
    metadata: Mapping[str, Any]
    offset: int

    @property
    def ours(self) -> Mapping[str, Any]:
        """What this project wrote; empty for an engine of somebody else."""
        found = self.metadata.get(KEY)
        return found if isinstance(found, dict) else {}

    def plan(self) -> bytes:
        """TensorRT's plan, once it is proven to be the one that was built.

        Raises:
            ArtifactError: The file was cut short or changed.
        """
        try:
            data = self.path.read_bytes()[self.offset :]
        except OSError as exc:
            raise ArtifactError(f"the engine '{self.path}' cannot be read ({exc.strerror or exc})") from exc
        size, digest = self.ours.get("size"), self.ours.get("sha256")
        if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"the engine '{self.path}' is damaged: not the {size} bytes that were built; {_AGAIN}")
        return data


def header_metadata(info: ModelInfo, dla: Any = None) -> dict[str, Any]:
    """The keys that ``ultralytics.YOLO`` reads from an engine's header.

    Args:
        info: The model.
        dla: DLA core that the engine uses; Ultralytics sets it on its runtime.
    """
    # as text, since the header is sorted: 10 stands before 2 there
    data = {**drop_in_metadata(info), "names": {str(index): name for index, name in enumerate(info.names)}}
    return data if dla is None else {**data, "dla": int(dla)}


def write_engine(path: Path, plan: bytes, metadata: Mapping[str, Any], ours: Mapping[str, Any]) -> Path:
    """Write an engine file under a temporary name and rename it when it is whole.

    Args:
        path: Where it goes; an older one there is replaced.
        plan: What TensorRT built.
        metadata: What ``header_metadata`` returned.
        ours: What it was built for and from.

    Raises:
        OutputError: The place cannot be written.
    """
    digest = hashlib.sha256(plan).hexdigest()
    header = {**metadata, KEY: {**ours, "format": FORMAT, "size": len(plan), "sha256": digest}}
    # json escapes what is not ASCII, so the length in bytes is that of the text
    text = json.dumps(header, sort_keys=True).encode("ascii")
    text += b" " * (-len(text) % _ALIGN)
    write_whole(path, len(text).to_bytes(4, "little", signed=True) + text + plan)
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees a part of it, whoever else writes it at the same time.

    Raises:
        OutputError: The place cannot be written.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=str(path.parent))
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            # renamed before it is on disk, the file may be empty after a power cut
            os.fsync(stream.fileno())
        # mkstemp makes files that only their owner can read, and engines are often built by root
        os.chmod(temporary, 0o644)
        os.replace(temporary, str(path))
    except OSError as exc:
        raise OutputError(f"'{path}' cannot be written ({exc.strerror or exc}); free space or choose another") from exc
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def read_header(path: Path) -> EngineFile:
    """Read the header of an engine file, not its plan.

    Raises:
        ArtifactError: There is no such file, or it has no header.
    """
    if not path.is_file():
        raise ArtifactError(f"there is no engine '{path}'; build it on this device with build_engine")
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(4), "little", signed=True)
            text = stream.read(length) if 0 < length <= _LARGEST_HEADER else b""
        metadata = json.loads(text.decode("utf-8"))
        if len(text) != length or not isinstance(metadata, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as exc:
        raise ArtifactError(f"'{path}' has no header of an engine file ({exc}); {_AGAIN}") from exc
    return EngineFile(path, metadata, 4 + length)
