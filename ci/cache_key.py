"""Prints the key that action.yml keeps downloaded packages under: what decides which of them are downloaded.

Standard library alone: nothing is installed yet.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def cache_key(extras: str) -> str:
    """Key of the packages that an installation with these extras downloads on this machine."""
    wanted = PROJECT.read_bytes() + ",".join(sorted(part.strip() for part in extras.split(","))).encode()
    python = ".".join(platform.python_version_tuple()[:2])
    return f"yoloquant-{platform.system()}-{platform.machine()}-{python}-{hashlib.sha256(wanted).hexdigest()[:16]}"


if __name__ == "__main__":
    print(cache_key(os.environ.get("EXTRAS", "")))
