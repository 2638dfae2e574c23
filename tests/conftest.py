"""What every test needs: helper modules of this folder, and a host that installs and downloads nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine
os.environ.setdefault("YOLO_OFFLINE", "true")
if (HERE := str(Path(__file__).resolve().parent)) not in sys.path:
    sys.path.insert(0, HERE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: what takes long must not begin when the other process has run out of work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
