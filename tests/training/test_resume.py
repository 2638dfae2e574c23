"""A run that was killed goes on from last.pt and ends where the uninterrupted run ends, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from core_models import checkpoint
from train_runs import run, task_data, tiny_checkpoint, write_images

from yoloquant.bridge.checkpoint import STATE_KEY
from yoloquant.errors import ArtifactError
from yoloquant.quantization.artifact import Artifact
from yoloquant.training.qat import checkpoint as checkpoints

QAT = {"preset": "fast", "images": 8, "loss": "both", "float_val": False, "damping": 0.01}
EPOCHS = 3


class Killed(BaseException):
    """What no code catches, like a signal."""


def kill_after(epochs: int) -> dict[str, Callable[[Any], None]]:
    def die(trainer: Any) -> None:
        if trainer.epoch + 1 == epochs:
            raise Killed

    return {"on_fit_epoch_end": die}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("source")
    return checkpoint(root / "float.pt"), write_images(root / "data", train=9, val=4)


def arguments(**changes: Any) -> dict[str, Any]:
    return {"epochs": EPOCHS, "qat": QAT, "lr0": 1e-3, "mosaic": 0.5, "close_mosaic": 1, **changes}


def same_states(a: Any, b: Any) -> bool:
    return list(a) == list(b) and all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def assert_same_end(a: Any, b: Any) -> None:
    assert same_states(a.model.state_dict(), b.model.state_dict())
    assert same_states(a.ema.ema.state_dict(), b.ema.ema.state_dict())
    assert a.ema.updates == b.ema.updates
    assert a.history.scores == b.history.scores and a.history.ranges == b.history.ranges
    for name in ("best", "last"):
        x, y = Artifact.load(getattr(a, name)), Artifact.load(getattr(b, name))
        assert {k: p.to_json() for k, p in x.plans.items()} == {k: p.to_json() for k, p in y.plans.items()}
        assert same_states(x.model.module.state_dict(), y.model.module.state_dict())


@pytest.fixture(scope="module")
def whole(source: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(*source, tmp_path_factory.mktemp("whole"), **arguments())


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_killed_run_ends_where_the_whole_run_ends(
    source: tuple[Path, Path], whole: Any, tmp_path: Path, epochs: int
) -> None:
    with pytest.raises(Killed):
        run(*source, tmp_path, callbacks=kill_after(epochs), **arguments())
    torch.manual_seed(1234)  # another process has other randomness
    last = tmp_path / "run" / "weights" / "last.pt"
    resumed = run(None, None, tmp_path, resume=str(last))
    assert resumed.start_epoch == epochs
    assert resumed.qat == whole.qat
    assert_same_end(resumed, whole)


@pytest.mark.nightly
@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_a_killed_run_of_every_task_ends_where_the_whole_run_ends(tmp_path: Path, task: str) -> None:
    model, data = tiny_checkpoint(tmp_path, "yolo11", task), task_data(tmp_path / "data", task)
    changes = arguments(task=task, epochs=2, mosaic=0.0)
    whole = run(model, data, tmp_path / "whole", **changes)
    with pytest.raises(Killed):
        run(model, data, tmp_path / "part", callbacks=kill_after(1), **changes)
    last = tmp_path / "part" / "run" / "weights" / "last.pt"
    resumed = run(None, None, tmp_path, task=task, resume=str(last))
    assert resumed.start_epoch == 1
    assert_same_end(resumed, whole)


@pytest.mark.slow
def test_accumulated_gradients_are_not_lost(source: tuple[Path, Path], tmp_path: Path) -> None:
    """Three batches an epoch, a step every second one: the epoch ends between two steps."""
    changes = arguments(epochs=2, nbs=8, mosaic=0.0)
    whole = run(*source, tmp_path / "whole", **changes)
    assert whole.accumulate == 2 and len(whole.train_loader) == 3
    with pytest.raises(Killed):
        run(*source, tmp_path / "part", callbacks=kill_after(1), **changes)
    resumed = run(None, None, tmp_path, resume=str(tmp_path / "part" / "run" / "weights" / "last.pt"))
    assert_same_end(resumed, whole)


def killed(source: tuple[Path, Path], folder: Path) -> Path:
    with pytest.raises(Killed):
        run(*source, folder, callbacks=kill_after(1), **arguments(mosaic=0.0))
    return folder / "run" / "weights" / "last.pt"


@pytest.fixture(scope="module")
def last(source: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """last.pt of a run that was killed after its first epoch; read-only."""
    return killed(source, tmp_path_factory.mktemp("killed"))


def changed(last: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    content = torch.load(last, weights_only=False)
    change(content[STATE_KEY][checkpoints.RUN_KEY])
    path = folder / "last.pt"
    torch.save(content, path)
    return path


DAMAGE = {
    "no optimizer": lambda r: r.pop("optimizer"),
    "a tensor less": lambda r: r["model"].pop(next(iter(r["model"]))),
    "another shape": lambda r: r["ema"].update({next(iter(r["ema"])): torch.zeros(7)}),
    "no plan": lambda r: r.update(plan="{}"),
    "an unknown option": lambda r: r["options"].update(colour="red"),
    "no random state": lambda r: r.update(random={}),
    "no gradients": lambda r: r.pop("accumulation"),
    "no history": lambda r: r.update(history={"scores": [{"epoch": 0}], "ranges": []}),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_refused_before_it_trains(last: Path, tmp_path: Path, damage: str) -> None:
    path = changed(last, tmp_path, DAMAGE[damage])

    def forbidden(trainer: Any) -> None:
        raise AssertionError("trained on")

    with pytest.raises(ArtifactError, match=r"does not fit|damaged"):
        run(None, None, tmp_path, resume=str(path), callbacks={"on_train_batch_start": forbidden})


@pytest.mark.slow
def test_a_finished_run_is_not_resumed(whole: Any, last: Path) -> None:
    assert "optimizer" in checkpoints.read(last).run
    for path in (whole.last, whole.best):
        with pytest.raises(ArtifactError, match="finished"):
            checkpoints.read(path)
        with pytest.raises(ArtifactError, match="finished"):
            run(None, None, Path(), resume=str(path))


@pytest.mark.slow
def test_a_run_killed_after_its_last_epoch_is_finished(source: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(*source, tmp_path, callbacks=kill_after(1), **arguments(epochs=1, mosaic=0.0))
    weights = tmp_path / "run" / "weights"
    with pytest.raises(ArtifactError, match="finished"):
        run(None, None, tmp_path, resume=str(weights / "last.pt"))
    assert Artifact.load(weights / "best.pt").plans


@pytest.mark.slow
def test_a_kill_while_writing_leaves_the_checkpoint_before(
    source: tuple[Path, Path], whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch.save, []

    def save(content: Any, stream: Any, **options: Any) -> None:
        last = checkpoints.RUN_KEY in content[STATE_KEY]
        calls.append(last)
        if sum(calls) == 2 and last:  # last.pt of the second epoch
            stream.write(b"half a file")
            raise Killed
        real(content, stream, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(Killed):
            run(*source, tmp_path, **arguments())
    weights = tmp_path / "run" / "weights"
    assert {p.name for p in weights.iterdir()} == {"best.pt", "last.pt"}
    resumed = run(None, None, tmp_path, resume=str(weights / "last.pt"))
    assert resumed.start_epoch == 1
    assert_same_end(resumed, whole)


@pytest.mark.slow
def test_end_to_end_losses_resume_their_schedule() -> None:
    from train_runs import planned

    from yoloquant.training.callbacks import host_criterion

    model = planned("yolo26")[0].model.module
    from ultralytics.cfg import get_cfg

    model.args = get_cfg(overrides={"epochs": 10})
    going, resumed = host_criterion(model, 0), host_criterion(model, 3)
    for _ in range(3):
        going.update()
    assert going.updates == resumed.updates == 3
    assert math.isclose(going.o2m, resumed.o2m) and going.o2m != host_criterion(model, 0).o2m
