"""Training in two processes: Ultralytics' own launcher and wrapping, on the CPU (see cpu_ranks)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cpu_ranks
import pytest
import torch
from core_models import checkpoint, write_images
from train_runs import run
from ultralytics import YOLO
from ultralytics.engine import trainer as engine
from ultralytics.utils import callbacks
from ultralytics.utils.torch_utils import unwrap_model

from yoloquant import api
from yoloquant.bridge.checkpoint import load_model
from yoloquant.errors import TrainingError
from yoloquant.pruning.metadata import is_pruned
from yoloquant.quantization.artifact import Artifact
from yoloquant.sparsity.two_four import check_24
from yoloquant.sparsity.unstructured import sparsity_report
from yoloquant.training import distributed as ranks
from yoloquant.training.prune.trainer import MASKS, SCORES, START, TEACHER

pytest.importorskip("cloudpickle", reason="Ultralytics hands a model to its processes with cloudpickle")
pytestmark = pytest.mark.slow

COMMON = {"imgsz": 64, "batch": 4, "plots": False, "workers": 0, "name": "run", "exist_ok": True}
QAT = {"preset": "fast", "images": 8, "range_lr": 0.05}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("source")
    return checkpoint(root / "float.pt"), write_images(root / "data", train=20, val=4)


@pytest.fixture(scope="module", autouse=True)
def two_processes() -> Any:
    """``device="0,1"`` starts two processes on the CPU, which note what they do."""
    with pytest.MonkeyPatch.context() as patch:
        cpu_ranks.install(patch.setattr)
        for event, note in cpu_ranks.CALLBACKS.items():
            patch.setitem(callbacks.default_callbacks, event, [*callbacks.default_callbacks[event], note])
        yield


@pytest.fixture(scope="module")
def forks() -> Any:
    """Takes the launcher's place, which one run in here shows at work."""
    server = cpu_ranks.Forks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "subprocess", server)
        yield
    server.close()


def notes(folder: Path) -> list[dict[str, Any]]:
    """What the two processes of a run noted; read once, so that nothing old is found."""
    found = [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]
    for rank in (0, 1):
        (folder / f"rank{rank}.pt").unlink()
    assert all(n["wrapped"] == "DistributedDataParallel" for n in found)
    return found


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    assert list(a) == list(b)
    return [name for name in a if not torch.equal(a[name], b[name])]


# -- quantization-aware training, on images without labels, of a live model


@pytest.fixture(scope="module")
def whole(source: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], YOLO]:
    """Two batches make a step, and a learning rate that hurts ends the run early."""
    root, model = tmp_path_factory.mktemp("whole"), YOLO(source[0])
    with torch.no_grad():
        model.model.model[0].conv.weight.mul_(0.5)  # not what the file holds
    images = source[1].parent / "images" / "train"
    model.train(
        trainer=api_trainer(),
        data=str(images),
        device=cpu_ranks.TWO,
        project=str(root),
        qat=QAT,
        **{**COMMON, "epochs": 5, "nbs": 8, "lr0": 0.05, "patience": 1},
    )
    return root / "run", notes(root / "run"), model


def api_trainer() -> Any:
    import yoloquant

    return yoloquant.QATTrainer


def test_every_process_holds_the_same_model_throughout(source: tuple[Path, Path], whole: Any) -> None:
    _, (first, second), _ = whole
    for when in ("start", "end", "average", "gradients"):
        assert not differing(first[when], second[when]), when
    assert len(first["steps"]) == len(second["steps"]) >= 8
    for a, b in zip(first["steps"], second["steps"], strict=True):
        assert not differing(a, b)
    ranges = [n for n in first["end"] if n.endswith("log_ratio")]
    assert len(ranges) > 50 and any(bool(first["end"][n].any()) for n in ranges)
    assert torch.equal(first["start"]["model.0.conv.weight"], scaled(source[0]))  # the live model's, not the file's
    assert len(first["images"]) == len(second["images"]) == 8
    assert not set(first["images"]) & set(second["images"])
    assert not set(first["random"]) & set(second["random"])  # each augments in its own way


def scaled(path: Path) -> torch.Tensor:
    return load_model(path).module.state_dict()["model.0.conv.weight"].float() * 0.5


def test_the_gradient_is_that_of_one_process_over_both_batches(source: tuple[Path, Path], whole: Any) -> None:
    class Done(BaseException):
        pass

    found: dict[str, torch.Tensor] = {}

    def compute(trainer: Any) -> None:
        model = unwrap_model(trainer.model)
        model.load_state_dict(whole[1][0]["start"])
        model.train()
        for part in [n["batches"][0] for n in whole[1]]:
            trainer.preprocess_batch(dict(part))  # freezes the statistics
            model(part)[0].sum().backward()
        found.update({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        raise Done

    float_model = whole[0].parent / "float.pt"
    checkpoint(float_model, live_again(source[0]))
    with pytest.raises(Done):
        run(float_model, source[1], whole[0].parent / "reference", qat=QAT, callbacks={"on_train_start": compute})
    wanted = whole[1][0]["gradients"]
    assert list(found) == list(wanted)
    assert {"model.0.conv.weight"} < set(wanted) and sum(n.endswith("log_ratio") for n in wanted) > 50
    for name, gradient in wanted.items():
        bound = 1e-5 * float(gradient.abs().max())
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=bound), name


def live_again(path: Path) -> Any:
    module = load_model(path).module
    with torch.no_grad():
        module.model[0].conv.weight.mul_(0.5)  # type: ignore[index,union-attr,operator]
    return module


def test_one_process_scores_selects_and_saves_for_all(whole: Any) -> None:
    folder, (first, second), model = whole
    assert first["epoch"] == second["epoch"] < 4  # stopped early, together
    rows = (folder / "results.csv").read_text().splitlines()
    assert len(rows) == first["epoch"] + 2 and "fidelity" in rows[0]
    best = Artifact.load(folder / "weights" / "best.pt")
    qat = best.provenance["qat"]
    assert qat["score_kind"] == "fidelity" and 0 < qat["score_calibrated"] <= qat["score"]
    assert len(YOLO(folder / "weights" / "last.pt")(torch.rand(1, 3, 64, 64), verbose=False)) == 1
    last = next(iter(Artifact.load(folder / "weights" / "last.pt").plans.values()))
    average = first["average"]
    assert {p.algorithm for p in last.points if not p.fixed} >= {"learned"}
    stored = Artifact.load(folder / "weights" / "last.pt").model.module.state_dict()
    assert all(torch.equal(average[n], v) for n, v in stored.items())
    assert not differing(model.model.state_dict(), best.model.module.state_dict())


def test_scores_do_not_depend_on_the_number_of_processes(source: tuple[Path, Path], whole: Any) -> None:
    images = source[1].parent / "images" / "train"
    float_model = whole[0].parent / "scored.pt"
    checkpoint(float_model, live_again(source[0]))
    alone = run(float_model, images, whole[0].parent / "alone", epochs=1, qat=QAT, lr0=0.05)
    qat = Artifact.load(whole[0] / "weights" / "last.pt").provenance["qat"]
    assert alone.history.start.fitness == pytest.approx(qat["score_calibrated"], abs=1e-6)


@pytest.mark.usefixtures("forks")
def test_an_interrupted_run_ends_where_the_whole_run_ends(whole: Any, tmp_path: Path) -> None:
    folder, before, _ = whole
    wanted = {n: Artifact.load(folder / "weights" / f"{n}.pt") for n in ("best", "last")}
    interrupted = folder / "weights" / "interrupted.pt"
    run(None, None, tmp_path, resume=str(interrupted), device=cpu_ranks.TWO)
    after = notes(folder)
    for a, b in zip(before, after, strict=True):
        assert a["epoch"] == b["epoch"] and a["random"] == b["random"]
        assert not differing(a["end"], b["end"]) and not differing(a["average"], b["average"])
    for name, artifact in wanted.items():
        again = Artifact.load(folder / "weights" / f"{name}.pt")
        assert {k: p.to_json() for k, p in artifact.plans.items()} == {k: p.to_json() for k, p in again.plans.items()}


# -- pruning


@pytest.mark.usefixtures("forks")
def test_a_pruned_model_is_fine_tuned_with_its_teacher(source: tuple[Path, Path], tmp_path: Path) -> None:
    prune = {"amount": 0.5, "round_to": 2, "images": 4, "criterion": "taylor"}
    arguments = {**COMMON, "epochs": 1, "project": str(tmp_path), "device": cpu_ranks.TWO}
    result = api.train(source[0], data=source[1], prune=prune, **arguments)
    first, second = notes(result.folder)
    parameters = [n for n in first["end"] if n in first["steps"][0]]
    assert not differing(first["start"], second["start"]) and not differing(first["average"], second["average"])
    assert all(torch.equal(first["end"][n], second["end"][n]) for n in parameters)
    assert any(not torch.equal(first["end"][n], first["start"][n]) for n in parameters)
    assert result.score >= 0 and result.score_calibrated == result.score_calibrated  # the unpruned one was scored
    assert "distill_box" in (result.folder / "results.csv").read_text()
    found = load_model(result.best).module
    assert is_pruned(found) and not list(result.folder.glob(SCORES))
    assert not {p.name for p in result.best.parent.iterdir()} & {START, TEACHER, MASKS}
    assert len(YOLO(result.best)(torch.rand(1, 3, 64, 64), verbose=False)) == 1


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("kind", ["unstructured", "2:4"])
def test_zeros_hold_in_every_process(kind: str, source: tuple[Path, Path], tmp_path: Path) -> None:
    prune = {"kind": kind, "amount": 0.6 if kind == "unstructured" else 0.5}
    arguments = {**COMMON, "epochs": 2, "project": str(tmp_path), "device": cpu_ranks.TWO}
    result = api.train(source[0], data=source[1], prune=prune, **arguments)
    first, second = notes(result.folder)
    assert first["masks"] and not differing(first["masks"], second["masks"])
    for name, mask in first["masks"].items():
        for where in ("end", "average"):
            assert not first[where][name][~mask].any() and not second[where][name][~mask].any()
    module = load_model(result.best).module
    share = sparsity_report(module).share
    assert share > 0.55 if kind == "unstructured" else 0.3 < share <= 0.51
    if kind == "2:4":
        weights = dict(module.named_parameters())
        assert not any(check_24(weights[n]).broken for n in first["masks"])


# -- what processes tell each other


def test_a_process_that_fails_is_reported() -> None:
    trainer = SimpleNamespace(resume=False)
    with pytest.raises(TrainingError, match=r"a process of the distributed run ended with code 3"):  # noqa: SIM117
        with ranks.launching(trainer):
            assert trainer.resume  # the folder stays
            subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)
    assert trainer.resume is False
