"""What this processor adds exactly, and how many threads this process may really use of it."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")
WITHOUT_VNNI = "YOLOQUANT_WITHOUT_VNNI"
"""Set where a processor without VNNI is emulated: there ``/proc/cpuinfo`` is still that of the machine."""


def has_vnni(cpuinfo: Path = CPUINFO) -> bool | None:
    """Whether this processor adds four products of bytes at once, exactly; None where that cannot be known.

    Args:
        cpuinfo: Where Linux lists what processors can.
    """
    if os.environ.get(WITHOUT_VNNI):
        return False
    text = _text(cpuinfo)
    return None if not text else "vnni" in text


def affinity() -> tuple[int, ...]:
    """Cores that this process may use; empty where it cannot be known."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def cpu_threads(root: Path = CGROUPS, own: Path = OWN) -> int:
    """Threads that run at once here: cores of the affinity, at most as many as the control group's quota pays for.

    ``os.cpu_count()`` counts the machine's cores. In a container of two cores on a machine of 64 it says 64, and so
    many threads stand in each other's way.

    Args:
        root: Where control groups are mounted.
        own: Which groups this process is in.
    """
    cores = len(affinity()) or os.cpu_count() or 1
    quota = cpu_quota(root, own)
    # Rounded up: what is left of a core still carries one more thread for a part of the time.
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = CGROUPS, own: Path = OWN) -> float | None:
    """Processors that the control groups of this process pay for, the strictest of them; None without a limit.

    See the Linux kernel's documentation: ``cpu.max`` of cgroup v2, ``cpu.cfs_quota_us`` of v1.
    """
    quotas = [share for folder in _folders(root, own) for share in (_version_2(folder), _version_1(folder)) if share]
    return min(quotas) if quotas else None


def _folders(root: Path, own: Path) -> list[Path]:
    """Folders of this process's groups up to the root, in both versions; a container sees its own group as the root."""
    # Version 1 mounts controllers in folders of their own, these two often in one.
    folders = [root, root / "cpu", root / "cpu,cpuacct"]
    for line in _text(own).splitlines():
        # Filled up, so that an odd line is no error here; a place may hold colons itself.
        _, controllers, place = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        relative = Path(place.lstrip("/"))
        # Every parent, too: the strictest quota on the way up holds.
        folders += [base / part for part in (relative, *relative.parents)]
    return folders


def _version_2(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    return _share(*words) if len(words) == 2 else None


def _version_1(folder: Path) -> float | None:
    return _share(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _share(quota: str, period: str) -> float | None:
    try:
        share = float(quota) / float(period)  # "max" and -1 mean no limit
    except (ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
