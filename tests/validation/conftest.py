"""Fixtures of the validation tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from validation_fakes import write_dataset

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The yaml of a small labelled data set."""
    return write_dataset(tmp_path / "set")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Weights and COCO images beside the checkout."""
    if not (SHARED / "weights" / "yolo11n.pt").is_file():
        pytest.skip("needs yolo11n.pt and the COCO subset in ../shared")
    return SHARED
