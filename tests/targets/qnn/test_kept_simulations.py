"""Results of the simulator of the NPU, kept: what is recalled, what is computed anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yoloquant import cache, targets
from yoloquant.cache import Key, Store
from yoloquant.errors import OutputError
from yoloquant.runtime import backends
from yoloquant.runtime.backends import BackendOptions
from yoloquant.targets.qnn import target as qnn
from yoloquant.targets.qnn.kept_simulations import RecalledBackend, simulation_key
from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task

INFO = ModelInfo(Task.DETECT, ("a",), (64, 64), 32, (8, 16, 32))
KEY: Key = {"sha256": "of a file", "soc_model": 43}


class Simulator:
    """Counts what it computes."""

    version = "2.7.0"

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
    simulator, store = Simulator(), Store(tmp_path / "kept")
    first = RecalledBackend(simulator, store, KEY, INFO)
    wanted = [first.run(image) for image in images()[:2]]
    # killed here; another run goes on
    again = RecalledBackend(simulator, Store(store.folder), KEY, INFO)
    assert simulator.starts == 1, "nothing asks for it yet"
    for outputs, image in zip(wanted, images(), strict=False):
        for a, b in zip(outputs, again.run(image), strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)
    assert (simulator.starts, simulator.runs) == (1, 2)
    again.run(images()[2])
    assert (simulator.starts, simulator.runs) == (2, 3)
    again.close()
    assert simulator.closed == 1 and again.untimed and again.version == "2.7.0"


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    simulator, store, (image, *_) = Simulator(), Store(tmp_path), images()
    RecalledBackend(simulator, store, KEY, INFO).run(image)
    (kept,) = tmp_path.glob("*/*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    found = RecalledBackend(simulator, store, KEY, INFO).run(image)
    assert simulator.runs == 2 and np.array_equal(found[1], image[:, :1, ::2, ::2] * 2)


def test_a_store_that_cannot_be_written_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path) -> Any:
        raise OutputError("no space")

    monkeypatch.setattr(cache, "scratch_folder", full)
    backend = RecalledBackend(simulator := Simulator(), Store(tmp_path), KEY, INFO)
    for image in images():
        assert len(backend.run(image)) == 2
    assert simulator.runs == 3 and caplog.text.count("nothing is kept there (no space)") == 1


def test_another_file_chip_or_package_has_results_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator, store, (image, *_) = Simulator(), Store(tmp_path / "kept"), images()
    (model := tmp_path / "m.onnx").write_bytes(b"one")
    keys = [simulation_key(model, 43), simulation_key(model, 57)]
    model.write_bytes(b"two")
    keys.append(simulation_key(model, 43))
    for key in (*keys, *keys):
        RecalledBackend(simulator, store, key, INFO).run(image)
    assert (simulator.starts, simulator.runs) == (3, 3)
    monkeypatch.setattr(cache, "_installed", lambda: "another release of a package")
    cache.surroundings.cache_clear()
    RecalledBackend(simulator, store, keys[0], INFO).run(image)
    cache.surroundings.cache_clear()
    assert (simulator.starts, simulator.runs) == (4, 4)


def test_a_validation_without_a_cache_computes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qnn, "is_simulated", lambda: True)
    monkeypatch.setattr(backends, "open_backend", lambda *_: simulator())
    (tmp_path / "m.onnx").write_bytes(b"one")
    exported = ExportedModel("qnn", tmp_path / "m.onnx", INFO, HeadLayout.RAW)
    target, simulator, (image, *_) = targets.get("qnn"), Simulator(), images()
    for store, runs in ((None, 1), (None, 2), (Store(tmp_path / "kept"), 3), (Store(tmp_path / "kept"), 3)):
        target.store = store
        target.open(exported, BackendOptions()).run(image)
        assert simulator.runs == runs
