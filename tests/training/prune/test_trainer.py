"""Fine-tuning a pruned model: its shapes stay, the unpruned one teaches it, zeros hold, runs resume."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from core_models import checkpoint
from pruning_cases import SIZE, case, image, plan_for, whole_plan
from train_runs import run as quantize_run
from train_runs import task_data, write_images
from ultralytics import YOLO

from yoloquant import api
from yoloquant.bridge.checkpoint import load_model
from yoloquant.errors import PruneError, UsageError
from yoloquant.graph.traced_model import TracedModel
from yoloquant.pruning.make_sparse import make_sparse
from yoloquant.pruning.metadata import RECORD, is_pruned
from yoloquant.pruning.prune_options import parse
from yoloquant.pruning.remove_channels import pruned
from yoloquant.sparsity.unstructured import masks_of, sparsity_report
from yoloquant.training.distillation.distill import FeatureExtractor, Teacher, feature_loss, head_outputs
from yoloquant.training.prune import finetune
from yoloquant.training.prune.finetune import fine_tune
from yoloquant.training.prune.trainer import MASKS, TEACHER, PruneTrainer, comparable

HALF = {"amount": 0.5, "round_to": 2, "images": 4}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("source")
    return checkpoint(root / "float.pt"), write_images(root / "data", train=8, val=4)


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    common = {"imgsz": 64, "batch": 4, "epochs": 1, "device": "cpu", "plots": False, "workers": 0}
    return {**common, "project": str(folder), "name": "run", "exist_ok": True, **changes}


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {n: tuple(p.shape) for n, p in module.named_parameters()}


def parameters(path: Path) -> int:
    return sum(p.numel() for p in load_model(path).module.parameters())


def trained_with(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, map_location="cpu", weights_only=False)["train_args"])


def share_of_zeros(path: Path) -> float:
    return sparsity_report(load_model(path).module).share


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"lr0": 1e-3}, {"lr0": 1e-3, "optimizer": "AdamW", "momentum": 0.9, "warmup_bias_lr": 0.0}),
        ({"lr0": 1e-3, "momentum": 0.8}, {"lr0": 1e-3, "optimizer": "AdamW", "momentum": 0.8, "warmup_bias_lr": 0.0}),
        ({"lr0": 1e-3, "optimizer": "SGD"}, {"lr0": 1e-3, "optimizer": "SGD"}),
        ({}, {}),
    ],
)
def test_a_learning_rate_that_is_given_counts(
    source: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    wanted: dict[str, Any],
) -> None:
    def seen(overrides: dict[str, Any], *args: Any) -> Any:
        raise StopIteration(overrides)

    monkeypatch.setattr(finetune, "_trainer", seen)
    with pytest.raises(StopIteration) as caught:
        fine_tune(source[0], source[1], parse(HALF), arguments(tmp_path, **given))
    rated = ("lr0", "optimizer", "momentum", "warmup_bias_lr")
    assert {k: v for k, v in caught.value.value.items() if k in rated} == wanted


def test_the_default_rate_is_what_ultralytics_gives_short_runs(source: tuple[Path, Path], tmp_path: Path) -> None:
    trainer = PruneTrainer(overrides={**arguments(tmp_path), "model": str(source[0]), "data": str(source[1])})
    optimizer = trainer.build_optimizer(torch.nn.Conv2d(3, 4, 1), "auto", iterations=100)
    assert {group["lr"] for group in optimizer.param_groups} == {finetune.learning_rate(trainer.data["nc"])}
    assert type(optimizer).__name__ == "AdamW" and optimizer.param_groups[0]["betas"][0] == 0.9
    assert trainer.args.warmup_bias_lr == 0.0


@pytest.mark.slow
def test_prune_and_fine_tune_keeps_the_shapes_and_writes_an_ordinary_checkpoint(
    source: tuple[Path, Path], tmp_path: Path
) -> None:
    result = api.train(source[0], data=source[1], prune={**HALF, "criterion": "taylor"}, **arguments(tmp_path))
    assert not result.quantized and result.score_calibrated == result.score_calibrated  # the unpruned one was scored
    found = load_model(result.best)
    record = getattr(found.module, RECORD)
    assert 0.45 < 1 - record[-1]["macs"][1] / record[0]["macs"][0] < 0.6
    assert parameters(result.best) < parameters(source[0])
    assert len(YOLO(result.best)(torch.rand(1, 3, 64, 64), verbose=False)) == 1
    assert not (result.folder / "weights" / TEACHER).exists()
    assert trained_with(result.best)["nbs"] == 4  # a step for every batch, since there are few
    again = api.train(
        result.best, data=source[1], prune={"teacher": str(source[0])}, **arguments(tmp_path, name="again", nbs=64)
    )
    assert trained_with(again.best)["nbs"] == 64
    assert "distill_features" in (again.folder / "results.csv").read_text()
    assert shapes(load_model(again.best).module) == shapes(found.module)


def statistics(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: b.clone() for n, b in module.named_buffers() if n.endswith(("running_mean", "running_var"))}


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
def test_batchnorm_statistics_are_measured_after_pruning_and_held_if_asked(
    source: tuple[Path, Path], tmp_path: Path, frozen: bool
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    options = {**HALF, "criterion": "l2", "freeze_bn": frozen}
    trainer = PruneTrainer(
        overrides={"model": str(source[0]), "data": str(source[1]), "prune": options, **arguments(tmp_path)}
    )
    trainer.add_callback("on_train_start", lambda t: seen.append(statistics(t.model)))
    trainer.train()
    unpruned, after = load_model(source[0]).module, statistics(trainer.model)
    uncut = [n for n, b in statistics(unpruned).items() if b.shape == after[n].shape]
    assert uncut and any(not torch.equal(statistics(unpruned)[n], seen[0][n]) for n in uncut)
    changed = [n for n, b in after.items() if not torch.equal(b, seen[0][n])]
    assert bool(changed) is not frozen


@pytest.mark.slow
def test_the_pruned_model_trains_quantized_and_keeps_its_shapes(source: tuple[Path, Path], tmp_path: Path) -> None:
    result = api.train(
        source[0],
        data=source[1],
        prune={**HALF, "criterion": "l2"},
        qat={"preset": "fast", "images": 8},
        **arguments(tmp_path),
    )
    assert result.quantized
    module = result.artifact.model.module
    assert is_pruned(module) and parameters(result.best) < parameters(source[0])
    assert result.best.parent.parent.name == "qat"
    assert api.export(result.best, targets="onnxruntime", output=tmp_path / "exports").exports


@pytest.mark.slow
def test_several_steps_reach_the_same_target(source: tuple[Path, Path], tmp_path: Path) -> None:
    result = api.train(
        source[0], data=source[1], prune={**HALF, "steps": 2, "criterion": "l1"}, **arguments(tmp_path, epochs=2)
    )
    record = getattr(load_model(result.best).module, RECORD)
    assert len(record) == 2
    gone = [1 - r["macs"][1] / record[0]["macs"][0] for r in record]
    assert 0.24 < gone[0] < 0.35 and 0.5 <= gone[1] < 0.6


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_its_shapes_and_its_teacher(source: tuple[Path, Path], tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise Killed

    overrides = {**arguments(tmp_path, epochs=3), "model": str(source[0]), "data": str(source[1]), "mode": "train"}
    trainer = PruneTrainer(overrides={**overrides, "prune": {**HALF, "criterion": "l2"}})
    trainer.add_callback("on_train_epoch_end", die)
    with pytest.raises(Killed):
        trainer.train()
    last = tmp_path / "run" / "weights" / "last.pt"
    assert (last.parent / TEACHER).is_file()
    smaller = shapes(load_model(last).module)
    result = fine_tune(last, None, parse({"amount": 0.5}), {"resume": True})
    assert shapes(load_model(result.best).module) == smaller
    rows = (tmp_path / "run" / "results.csv").read_text().strip().splitlines()
    assert [int(float(r.split(",")[0])) for r in rows[1:]] == [1, 2, 3]
    assert "distill_box" in rows[0] and "distill_features" in rows[0]
    assert trained_with(result.best)["nbs"] == 4


def test_blocks_are_compared_with_those_of_the_model_that_it_was() -> None:
    """Whatever is pruned, the teacher's channels that are compared are as many as the student's; others teach less."""
    found = case()
    student, device = pruned(found.module, plan_for(found)), torch.device("cpu")
    features = comparable(student, found.module, device)
    assert set(features) == {p.removesuffix(".bn") for p, _ in student.named_modules() if p.endswith(".bn")}
    assert any(kept is not None for kept in features.values())
    for path, kept in features.items():
        size = found.module.get_submodule(path).bn.num_features if kept is None else len(kept)
        assert size == student.get_submodule(path).bn.num_features
    assert not comparable(student, YOLO("yolo11n.yaml").model, device)


UNUSUAL = [("yolov9t", "detect"), ("yolov10n", "detect"), ("yolo12", "detect"), ("yolo26", "segment")]


@pytest.mark.parametrize(
    ("family", "task", "plan"), [("yolo11", "detect", whole_plan), *((*u, plan_for) for u in UNUSUAL)]
)
def test_blocks_are_compared_whatever_branches_run(family: str, task: str, plan: Any) -> None:
    """In training, branches run that a model leaves out when it predicts; one that lost nothing agrees."""
    found = case(family, task)
    student: Any = pruned(found.module, plan(found))
    source = load_model(found.module)
    outputs = head_outputs(student, TracedModel.of(source, SIZE).graph)
    features = comparable(student, found.module, torch.device("cpu"))
    teacher = Teacher(copy.deepcopy(found.module), outputs, student, features)
    tap = FeatureExtractor(student, outputs, dict.fromkeys(features))
    student.model[-1].training = True
    student(image())
    teacher(image())
    mine, theirs = tap.take_features(), teacher.tap.take_features()
    assert set(theirs) <= set(mine) <= set(features) and len(theirs) > 0.9 * len(features)
    loss = float(feature_loss(mine, theirs).detach())
    assert loss < 1e-6 if plan is whole_plan else 1e-3 < loss < 10


@pytest.mark.parametrize(("permutation", "same"), [("none", True), ("channel", False)])
def test_blocks_of_a_sparse_model_are_compared_unless_their_channels_moved(permutation: str, same: bool) -> None:
    found = case()
    source = load_model(found.module)
    student, _ = make_sparse(source, parse({"kind": "2:4", "permutation": permutation}))
    features = comparable(student, found.module, torch.device("cpu"))
    assert bool(features) is same and all(kept is None for kept in features.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unstructured", "2:4"])
def test_zeros_hold_through_training_and_quantization(kind: str, source: tuple[Path, Path], tmp_path: Path) -> None:
    options = {"kind": kind, "amount": 0.6 if kind == "unstructured" else 0.5}
    result = api.train(source[0], data=source[1], prune=options, **arguments(tmp_path, epochs=2))
    sparse = share_of_zeros(result.best)
    assert sparse > 0.55 if kind == "unstructured" else 0.3 < sparse <= 0.51
    assert not (result.folder / "weights" / MASKS).exists()
    before = masks_of(load_model(result.best).module)
    trained = quantize_run(result.best, source[1], tmp_path / "qat")
    after = load_model(trained.best).module
    weights = dict(after.named_parameters())
    assert before
    for name, mask in before.items():
        assert not weights[name][~mask].any()


@pytest.mark.slow
def test_unlabelled_images_suffice_to_distil(source: tuple[Path, Path], tmp_path: Path) -> None:
    folder = source[1].parent / "images" / "train"
    result = api.train(source[0], data=folder, prune={**HALF, "loss": "distill"}, **arguments(tmp_path))
    assert is_pruned(load_model(result.best).module)
    with pytest.raises(UsageError, match="loss=both needs labels"):
        api.train(source[0], data=folder, prune=HALF, **arguments(tmp_path, name="other"))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_every_task_is_pruned_and_fine_tuned(task: str, tmp_path: Path) -> None:
    from tiny_models import tiny_checkpoint

    path, data = tiny_checkpoint(tmp_path, "yolo11", task), task_data(tmp_path / "data", task)
    options = {**HALF, "amount": 0.3, "criterion": "taylor"}
    result = api.train(path, data=data, prune=options, **arguments(tmp_path))
    assert parameters(result.best) < parameters(path)
    assert YOLO(result.best).task == task


def test_plain_ultralytics_says_why_it_cannot_train_a_pruned_model(source: tuple[Path, Path], tmp_path: Path) -> None:
    from yoloquant.pruning.prune import prune

    path = prune(source[0], options=HALF, imgsz=64, output=tmp_path / "pruned.pt").path
    assert path is not None
    with pytest.raises(Exception, match="pruned: its shapes are not those of its yaml"):
        YOLO(path).train(data=str(source[1]), **arguments(tmp_path))


def test_bad_input_is_refused_before_training(source: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="how much to prune is not said"):
        YOLO(source[0]).train(trainer=PruneTrainer, data=str(source[1]), **arguments(tmp_path))
    with pytest.raises(PruneError, match="the most that"):
        api.train(source[0], data=source[1], prune={**HALF, "amount": 0.99, "criterion": "l2"}, **arguments(tmp_path))
    with pytest.raises(UsageError, match="as many epochs"):
        api.train(source[0], data=source[1], prune={**HALF, "steps": 5}, **arguments(tmp_path))
    with pytest.raises(UsageError, match="unknown training argument"):
        api.train(source[0], data=source[1], prune=HALF, epoch=3)
