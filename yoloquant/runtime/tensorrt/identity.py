"""Which device and release an engine belongs to: engines are portable between neither."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..device.cuda import GpuInfo
from ..errors import ArtifactError

L4T_RELEASE = Path("/etc/nv_tegra_release")
BOARD = Path("/proc/device-tree/model")
_RELEASE = re.compile(r"#\s*(R\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")


@dataclass(frozen=True)
class Identity:
    """What an engine was built for.

    Attributes:
        tensorrt: Version of TensorRT.
        gpu: Name of the GPU.
        compute_capability: Its compute capability.
        l4t: Release of Jetson Linux, for instance ``R36 4.3`` (JetPack 6.2); empty on other machines.
        board: Model of the board, because boards of one family with GPUs of different size may give them one name;
            empty where the kernel does not tell.
    """

    tensorrt: str
    gpu: str
    compute_capability: str
    l4t: str = ""
    board: str = ""

    @classmethod
    def of(cls, tensorrt: str, gpu: GpuInfo, release: Path | None = None, board: Path | None = None) -> Identity:
        """The identity of this machine.

        Args:
            tensorrt: Version of TensorRT.
            gpu: The GPU.
            release: File that names the release of Jetson Linux; the system's own if None.
            board: File that names the board; the system's own if None.
        """
        return cls(
            tensorrt,
            gpu.name,
            gpu.compute_capability,
            jetson_linux(release or L4T_RELEASE),
            board_model(board or BOARD),
        )

    def key(self, *parts: Any) -> str:
        """Hash of this identity and of whatever else decides which engine comes out (JSON data)."""
        # sorted: the key must not depend on the order in which fields are declared
        text = json.dumps([asdict(self), *parts], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def differences(self, built: Mapping[str, Any]) -> str:
        """Why an engine built elsewhere cannot run here; empty if it can.

        Args:
            built: The identity in the engine's header.
        """
        names = {
            "tensorrt": "TensorRT",
            "gpu": "the GPU",
            "compute_capability": "compute capability",
            "l4t": "Jetson Linux",
            "board": "the board",
        }
        reasons = []
        for field, name in names.items():
            here, there = str(getattr(self, field)), str(built.get(field, ""))
            if here != there:
                reasons.append(f"it was built for {name} {there or '(none)'}, here is {here or '(none)'}")
        return "; ".join(reasons)


def jetson_linux(path: Path = L4T_RELEASE) -> str:
    """Release of Jetson Linux from the file that every JetPack has; empty where there is none.

    Its first line is like ``# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, ...``.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    first = text.splitlines()[0].strip() if text.strip() else ""
    match = _RELEASE.search(first)
    # A line in another form tells releases apart as well.
    return " ".join(match.groups()) if match else first[:120]


def board_model(path: Path = BOARD) -> str:
    """Model of the board as the device tree has it, for instance ``NVIDIA Jetson AGX Orin Developer Kit``."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def require_same(here: Identity, built: Mapping[str, Any], engine: Path) -> None:
    """Refuse an engine of another device or release.

    Raises:
        ArtifactError: It is one; the message says what differs.
    """
    why = here.differences(built)
    if why:
        raise ArtifactError(f"the engine '{engine}' cannot run here: {why}; build it on this device with build_engine")
