"""Results of the simulator of the NPU, kept beside the file: what is recalled, what is computed anew."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yoloquant.errors import OutputError
from yoloquant.targets.qnn import recalled
from yoloquant.targets.qnn.recalled import RecalledBackend, results_folder
from yoloquant.types import ModelInfo, Task

INFO = ModelInfo(Task.DETECT, ("a",), (64, 64), 32, (8, 16, 32))


class Simulator:
    """Counts what it computes."""

    def __init__(self) -> None:
        self.starts, self.runs, self.closed = 0, 0, 0

    def __call__(self) -> Any:
        self.starts += 1
        return self

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        self.runs += 1
        return tensor[:, :1] * np.float32(1 / 3), tensor[:, :1, ::2, ::2] * 2

    def close(self) -> None:
        self.closed += 1


def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).random((3, 1, 3, 64, 64), np.float32))


def test_what_was_computed_is_not_computed_again(tmp_path: Path) -> None:
    simulator, folder = Simulator(), tmp_path / "kept"
    first = RecalledBackend(simulator, folder, INFO)
    wanted = [first.run(image) for image in images()[:2]]
    # killed here; another run goes on
    again = RecalledBackend(simulator, folder, INFO)
    assert simulator.starts == 1, "nothing asks for it yet"
    for outputs, image in zip(wanted, images(), strict=False):
        for a, b in zip(outputs, again.run(image), strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)
    assert (simulator.starts, simulator.runs) == (1, 2)
    again.run(images()[2])
    assert (simulator.starts, simulator.runs) == (2, 3)
    again.close()
    assert simulator.closed == 1 and again.untimed


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    simulator, (image, *_) = Simulator(), images()
    RecalledBackend(simulator, tmp_path, INFO).run(image)
    (kept,) = tmp_path.glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    found = RecalledBackend(simulator, tmp_path, INFO).run(image)
    assert simulator.runs == 2 and np.array_equal(found[1], image[:, :1, ::2, ::2] * 2)


def test_a_folder_that_cannot_be_written_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path) -> Any:
        raise OutputError("no space")

    monkeypatch.setattr(recalled, "atomic_path", full)
    backend = RecalledBackend(simulator := Simulator(), tmp_path, INFO)
    for image in images():
        assert len(backend.run(image)) == 2
    assert simulator.runs == 3 and caplog.text.count("are not kept: no space") == 1


def test_another_file_chip_or_package_has_results_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = iter(["2.7.0", "2.7.0", "2.7.0", "2.8.0"])
    monkeypatch.setattr(metadata, "version", lambda name: next(versions))
    (model := tmp_path / "m.onnx").write_bytes(b"one")
    folders = [results_folder(model, 43), results_folder(model, 57)]
    model.write_bytes(b"two")
    folders += [results_folder(model, 43), results_folder(model, 43)]
    assert len(set(folders)) == 4 and None not in folders

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert results_folder(model, 43) is None
