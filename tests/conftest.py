"""What every test needs: helper modules of this folder, and a host that installs and downloads nothing."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("YOLOQUANT_CACHE", "false")  # a kept result would hide what a change did
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine
os.environ.setdefault("YOLO_OFFLINE", "true")
if (HELPERS := str(Path(__file__).resolve().parent / "helpers")) not in sys.path:
    sys.path.insert(0, HELPERS)


LONG = {Path(__file__).resolve().parent / "conformance" / "test_targets.py"}
"""Files that take minutes although no single test of theirs is slow."""
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The yaml of a small labelled data set."""
    from validation_fakes import write_dataset

    return write_dataset(tmp_path / "set")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Weights and COCO images beside the checkout."""
    if not (SHARED / "weights" / "yolo11n.pt").is_file():
        pytest.skip("needs yolo11n.pt and the COCO subset in ../shared")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def each_network_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share what torch and LiteRT's converter make of equal networks, see ``conversions``."""
    if "torch" not in sys.modules:  # what was collected needs none, and is not to wait for its import
        yield
        return
    from conversions import each_network_once
    from once import shared_folder

    with each_network_once(shared_folder(tmp_path_factory, "conversions")):
        yield


@pytest.fixture
def every_time() -> Iterator[None]:
    """Nothing is shared: a test of whether the same is made twice."""
    from conversions import every_time

    with every_time():
        yield


def pytest_collection() -> None:
    """Search for no garbage while modules are imported and tests collected: hardly anything of it goes again."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Keep what is there by now (torch, thousands of tests) out of every search for garbage, as trainers start it."""
    gc.enable()
    gc.collect()
    gc.freeze()
    # traces make objects by the hundred thousand, nearly all of which go without a search: 8 % of the time went into it
    gc.set_threshold(50_000, 20, 20)
    # pytest listens to every logger that does not propagate; torch takes that for a reader of its traces, and describes
    # every operation and tensor: a fifth of a trace
    logging.getLogger("torch.__trace").propagate = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: what takes minutes must not begin when the other process has run out of work."""
    long = {item.path for item in items if item.get_closest_marker("slow")} | LONG
    items.sort(key=lambda item: item.path not in long)
