"""Training runs from end to end, and what they leave behind."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_models import checkpoint
from tiny_models import tiny_images, tiny_yolo
from train_runs import larger, raw_outputs, run, task_data, tiny_checkpoint, write_images

from yoloquant import api, targets
from yoloquant.bridge.checkpoint import load_model
from yoloquant.errors import TrainingError
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.plan import Plan, PointKind
from yoloquant.training.distillation.distill import Teacher
from yoloquant.training.qat.prepare import quantizers_of
from yoloquant.training.qat.trainer import DetectQATTrainer, QATTrainer

pytestmark = pytest.mark.slow
QAT = {"preset": "fast", "images": 8}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("source")
    return checkpoint(root / "float.pt"), write_images(root / "data", train=9, val=4)


@pytest.fixture(scope="module")
def trained(source: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trained by fitness 0 throughout, so that last.pt is what training made and best.pt what calibration made."""
    folder = tmp_path_factory.mktemp("trained")
    return run(*source, folder, epochs=2, lr0=1e-3, plots=True, qat={**QAT, "select": "fitness", "range_lr": 0.01})


def plan_of(path: Path) -> Plan:
    return next(iter(Artifact.load(path).plans.values()))


def ranges(plan: Plan) -> list[Any]:
    return [(p.name, p.params) for p in plan.points]


# -- the checkpoint


def test_the_ordinary_host_loads_the_result_without_this_package(trained: Any, tmp_path: Path) -> None:
    images, out = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(images, tiny_images(1, seed=3)[0])
    program = (
        "import sys; sys.modules['yoloquant'] = None\n"
        "import numpy, torch\nfrom ultralytics import YOLO\n"
        "path, images, out = sys.argv[1:]\nmodel = YOLO(path)\nx = torch.from_numpy(numpy.load(images))\n"
        "with torch.no_grad(): numpy.save(out, model.model.float().eval()(x)[0].numpy())\n"
        "assert not any('yoloquant' in type(m).__module__ for m in model.model.modules())\n"
        "assert len(model.predict(torch.zeros(1, 3, 64, 64), verbose=False)) == 1\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(trained.last), str(images), str(out)], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    average = copy.deepcopy(trained.ema.ema)
    quantizers_of(average).enabled = False
    with torch.no_grad():
        wanted = average.eval()(torch.from_numpy(np.load(images)))[0].numpy()
    assert np.array_equal(np.load(out), wanted)


def test_beside_the_module_stands_plain_data_only(trained: Any) -> None:
    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                assert type(key) in (str, int), path
                walk(item, f"{path}.{key}")
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                walk(item, f"{path}[{i}]")
        else:
            assert value is None or type(value) in (bool, int, float, str, torch.Tensor), (path, type(value))

    for path in (trained.best, trained.last):
        content = torch.load(path, weights_only=False)
        module = content.pop("ema")
        walk(content, path.name)
        assert b"yoloquant." not in path.read_bytes()  # no class of ours
        assert not any("quantizers" in k for k in module.state_dict())
        assert not load_model(path).unsafe


def test_learned_ranges_survive_every_way_of_copying(trained: Any, tmp_path: Path) -> None:
    from ultralytics.utils.torch_utils import strip_optimizer

    plan = plan_of(trained.last)
    assert {p.algorithm for p in plan.points if not p.fixed} >= {"learned"}
    assert any(a.params != b.params for a, b in zip(plan.points, trained.plan.points, strict=True))
    for p in plan.points:
        assert p.params is not None and p.params.scale.dtype == np.float32
    copied = tmp_path / "copy.pt"
    copied.write_bytes(trained.last.read_bytes())
    strip_optimizer(str(copied))
    assert load_model(copied).module.state_dict()["model.0.conv.weight"].dtype == torch.float32
    assert ranges(plan_of(copied)) == ranges(plan)
    saved = Artifact.load(trained.last).save(tmp_path / "saved.pt")
    assert ranges(plan_of(saved)) == ranges(plan)
    again = Artifact.load(saved)
    again.model.module.half()
    assert ranges(next(iter(again.plans.values()))) == ranges(plan)
    module = copy.deepcopy(trained.ema.ema).half()
    live = quantizers_of(module).by_name()
    assert [live[p.name].qparams() for p in plan.points] == [p.params for p in plan.points]


def test_statistics_and_the_checkpoint_s_provenance(source: tuple[Path, Path], trained: Any) -> None:
    before, after = (load_model(p).module.state_dict() for p in (source[0], trained.last))
    assert list(before) == list(after)
    for name, value in before.items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(after[name], value), name
    assert any(not torch.equal(after[n], v) for n, v in before.items() if n.endswith("conv.weight"))
    qat = Artifact.load(trained.last).provenance["qat"]
    assert qat["preset"] == "fast" and qat["data_sha256"] and qat["epochs"] == 2


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_exports_hold_every_learned_range(trained: Any, tmp_path: Path, target: str) -> None:
    artifact = Artifact.load(trained.last)
    result = api.export(artifact, targets=target, output=tmp_path)
    (exported,) = result.exports
    scales = targets.get(target).read_scales(exported)
    learned = [p for p in plan_of(trained.last).points if p.algorithm == "learned" and p.name in scales]
    kinds = {p.kind for p in learned}
    assert kinds == {PointKind.WEIGHT, PointKind.ACTIVATION} and len(learned) > 50
    for point in learned:
        scale, zero = scales[point.name]
        assert np.array_equal(np.ravel(scale), np.ravel(point.params.scale)), point.name
        assert np.array_equal(np.ravel(zero), np.ravel(point.params.zero_point)), point.name


# -- never worse than calibration


def untouched(best: Path, source: Path, plan: Plan) -> bool:
    before, after = (load_model(p).module.state_dict() for p in (source, best))
    same = all(torch.equal(a, b) for a, b in zip(before.values(), after.values(), strict=True))
    return same and ranges(plan_of(best)) == ranges(plan)


def test_training_that_hurts_keeps_the_calibrated_model(
    source: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from ultralytics.utils import LOGGER

    LOGGER.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            trainer = run(*source, tmp_path, epochs=5, patience=1, lr0=0.05, qat={**QAT, "range_lr": 0.05})
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert trainer.history.best().epoch == 0 and trainer.epoch < 4  # stopped early
    assert trainer.history.scores[-1].fitness < trainer.history.scores[0].fitness
    assert untouched(trainer.best, source[0], trainer.plan)
    assert ranges(plan_of(trainer.last)) != ranges(trainer.plan)
    assert "did not beat the calibrated ranges" in caplog.text


def test_a_tie_keeps_the_calibrated_model(source: tuple[Path, Path], trained: Any) -> None:
    assert {s.fitness for s in trained.history.scores} == {0.0}
    assert untouched(trained.best, source[0], trained.plan)


def test_calibration_is_scored_and_kept_with_its_shift_and_training_goes_on_from_it(
    source: tuple[Path, Path], tmp_path: Path
) -> None:
    started: dict[str, torch.Tensor] = {}

    def note(trainer: Any) -> None:
        started.update({name: p.detach().clone() for name, p in trainer.model.named_parameters()})

    # fitness is 0 throughout, so that calibration is kept
    trainer = run(*source, tmp_path, qat={**QAT, "select": "fitness"}, callbacks={"on_train_epoch_start": note})
    plain = dict(load_model(source[0]).module.named_parameters())
    shifts = Artifact.load(trainer.best).bias[trainer.plan.scheme]
    assert any(value.any() for value in shifts.values()) and not Artifact.load(trainer.last).bias
    for path, value in shifts.items():
        name = f"{path}.bias"
        assert torch.equal(started[name], plain[name] + torch.from_numpy(value))
        assert torch.equal(trainer.float_model.get_parameter(name), plain[name])
    assert untouched(trainer.best, source[0], trainer.plan)
    start = trainer.history.scores[0].metrics()
    # the best is read back at the end, with its shift
    assert {k: trainer.metrics[k] for k in ("fidelity", "confidence_shift")} == pytest.approx(
        {k: start[k] for k in ("fidelity", "confidence_shift")}, abs=2e-5
    )


def test_epochs_that_are_not_scored_never_become_the_best(source: tuple[Path, Path], tmp_path: Path) -> None:
    trainer = run(*source, tmp_path, epochs=2, val=False, lr0=0.05)
    assert [s.epoch for s in trainer.history.scores] == [0, 2]
    assert untouched(trainer.best, source[0], trainer.plan) is (trainer.history.best().epoch == 0)


def test_a_loss_that_explodes_ends_the_run_and_leaves_the_calibrated_model(
    source: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"NaN or infinite.*lower"):
        run(*source, tmp_path, epochs=2, qat={**QAT, "range_lr": 1e6})
    best = tmp_path / "run" / "weights" / "best.pt"
    before, after = (load_model(p).module.state_dict() for p in (source[0], best))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), after.values(), strict=True))


# -- arguments


def test_frozen_layers_and_the_host_s_loss(source: tuple[Path, Path], tmp_path: Path) -> None:
    qat = {**QAT, "loss": "detect", "damping": 0.1}
    trainer = run(
        *source,
        tmp_path,
        epochs=2,
        freeze=2,
        cos_lr=False,
        save_period=1,
        lr0=1e-3,
        warmup_epochs=1,
        qat=qat,
    )
    before = load_model(source[0]).module.state_dict()
    after = trainer.ema.ema.state_dict()
    changed = {n for n, v in before.items() if not torch.equal(v, after[n])}
    assert changed and not any(n.startswith(("model.0.", "model.1.")) for n in changed)
    assert {p.name for p in trainer.wdir.iterdir()} >= {"epoch0.pt", "epoch1.pt"}
    assert {"box_loss", "damping"} <= {n.split("/")[-1] for n in trainer.loss_names} or "damping" in trainer.loss_names
    assert all(r.start.dtype == torch.float32 for r in quantizers_of(trainer.model).ranges)


def test_sizes_accumulation_mosaic_and_few_bits(source: tuple[Path, Path], tmp_path: Path) -> None:
    qat = {**QAT, "loss": "both", "weight_bits": 4, "learn_heads": True, "feature_weight": 0.5}
    trainer = run(*source, tmp_path, epochs=2, batch=3, multi_scale=0.5, nbs=12, mosaic=1.0, close_mosaic=1, qat=qat)
    assert trainer.accumulate == 4
    plan = plan_of(trainer.last)
    assert sum(p.spec.bits == 4 for p in plan.weights) > 0.5 * len(plan.weights)
    heads = [p for p in plan.points if p.role.value in {"score", "head"}]
    assert heads and all(p.algorithm == "learned" and p.spec.bits == 8 for p in heads)
    assert {"distill_cls", "distill_features"} <= set(trainer.loss_names)


def test_affine_ranges_with_learned_offsets_within_a_time_limit(source: tuple[Path, Path], tmp_path: Path) -> None:
    qat = {**QAT, "scheme": "litert", "learn_offset": True, "range_lr": 0.1, "local_weight": 1.0}
    trainer = run(*source, tmp_path, time=2 / 3600, qat=qat)
    plan = plan_of(trainer.last)
    fixed = [(a, b) for a, b in zip(trainer.plan.points, plan.points, strict=True) if a.fixed]
    assert fixed and all(a.params == b.params for a, b in fixed)
    lows = [r.log_low for r in quantizers_of(trainer.ema.ema).ranges if r.log_low is not None]
    assert lows and any(float(v.abs().max()) > 0 for v in lows)
    assert "range_error" in trainer.loss_names
    assert trainer.epochs < 1000 and trainer.history.scores[-1].epoch >= 1


def test_a_folder_of_images_suffices(source: tuple[Path, Path], tmp_path: Path) -> None:
    folder = write_images(tmp_path / "more", train=14, val=1).parent / "images" / "train"
    trainer = run(source[0], folder, tmp_path / "out", epochs=1)
    seen = set(map(str, trainer.train_loader.dataset.im_files))
    held = set(map(str, trainer.test_loader.dataset.im_files))
    assert len(seen) == 10 and len(held) == 4 and not seen & held
    assert plan_of(trainer.best).calibrated and (tmp_path / "out" / "run" / "unlabelled.yaml").is_file()


def test_images_suffice_of_which_none_has_a_label_anywhere(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (write_images(tmp_path / "more", train=14, val=1).parent / "images" / "train").rename(folder)
    trainer = run(tiny_checkpoint(tmp_path, "yolo11", "pose"), folder, tmp_path / "out", task="pose")
    assert trainer.data["kpt_shape"] == [5, 3] and not any(len(i["cls"]) for i in trainer.train_loader.dataset.labels)
    assert plan_of(trainer.best).calibrated


def test_a_larger_teacher(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", train=8, val=4)
    student = tiny_checkpoint(tmp_path, "yolo11")
    model = larger()
    model.model.args = {"imgsz": 64, "task": "detect"}
    model.model.names = {i: f"thing {i}" for i in range(3)}
    teacher = tmp_path / "teacher.pt"
    model.save(str(teacher))
    trainer = run(student, data, tmp_path / "out", qat={**QAT, "teacher": str(teacher)})
    found: Teacher = trainer.model.criterion.teacher
    sizes = [sum(p.numel() for p in m.parameters()) for m in (found.model, tiny_yolo().model)]
    assert sizes[0] > 3 * sizes[1]
    assert not trainer.selects_fidelity


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_every_task_trains_and_exports(tmp_path: Path, task: str) -> None:
    model, data = tiny_checkpoint(tmp_path, "yolov8", task), task_data(tmp_path / "data", task)
    trainer = run(model, data, tmp_path / "out", task=task, lr0=1e-4, qat={**QAT, "loss": "both", "float_val": False})
    assert type(trainer).__name__.lower().startswith(task if task != "classify" else "classify")
    artifact = Artifact.load(trainer.last)
    assert any(p.algorithm == "learned" for p in plan_of(trainer.last).points)
    (exported,) = api.export(artifact, targets="onnxruntime", output=tmp_path / "exports").exports
    assert exported.path.stat().st_size > 0


def test_an_end_to_end_head_is_scored_and_kept(tmp_path: Path) -> None:
    """Recent releases write the branch that they score into the model; the plan is for one of them."""
    model = tiny_yolo("yolo26")
    model.model.end2end = True
    path = tmp_path / "e2e.pt"
    model.save(str(path))
    trainer = run(path, write_images(tmp_path / "data", train=8, val=4), tmp_path / "out", qat={**QAT, "loss": "both"})
    artifact = Artifact.load(trainer.best)
    assert artifact.info.end2end and trainer.artifact.info.end2end
    assert set(plan_of(trainer.best).by_name) <= {*artifact.graph.ops, *(p.name for p in trainer.plan.points)}
    assert raw_outputs(trainer.ema.ema, torch.zeros(1, 3, 64, 64))


# -- several processes


def test_workers_of_a_distributed_run_get_the_class_the_settings_and_each_callback_once(
    source: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cloudpickle")
    from ultralytics.utils import dist

    monkeypatch.setattr(dist, "USER_CONFIG_DIR", tmp_path)
    settings = {**QAT, "loss": "both", "damping": 0.25, "scheme": "litert", "range_lr": 0.125}
    parent = run(*source, tmp_path, train=False, qat=settings)
    parent.ddp, parent.world_size, files = True, 2, []

    def launch(command: list[str], check: bool) -> None:
        path = Path(command[-1])
        files.append((path.read_text(), torch.load(path.with_suffix(".pt"), weights_only=False)))

    monkeypatch.setattr("ultralytics.engine.trainer.subprocess.run", launch)
    parent.train()
    ((script, state),) = files
    assert 'state["trainer"](cfg=cfg, overrides=state["args"]' in script
    assert state["trainer"] is DetectQATTrainer
    assert DetectQATTrainer.__qualname__ in vars(sys.modules[DetectQATTrainer.__module__])
    from ultralytics.utils import DEFAULT_CFG_DICT

    cfg = {**DEFAULT_CFG_DICT, "save_dir": ""}
    worker = state["trainer"](cfg=cfg, overrides=state["args"], _callbacks=state["callbacks"])
    assert worker.qat == parent.qat and worker.qat.range_lr == 0.125
    assert not hasattr(worker.args, "qat") and worker.args.lr0 == parent.args.lr0
    ours = [c for found in worker.callbacks.values() for c in found if "yoloquant" in c.__module__]
    assert len(ours) == len(set(ours)) == 3
    assert worker.save_dir == parent.save_dir


def test_another_process_finds_the_settings_in_the_run_s_folder(trained: Any) -> None:
    second = DetectQATTrainer(overrides={**vars(trained.args), "save_dir": str(trained.save_dir), "exist_ok": True})
    assert second.qat == trained.qat
    assert json.loads((trained.save_dir / "qat.json").read_text())["preset"] == "fast"


def test_a_live_model_brings_the_plan_of_its_checkpoint(
    source: tuple[Path, Path], trained: Any, tmp_path: Path
) -> None:
    from ultralytics import YOLO

    trainer = run(trained.last, source[1], tmp_path, train=False)
    model = YOLO(str(trained.last)).model
    trainer.get_model(weights=model)
    assert trainer._source.state["plans"]
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    trainer.get_model(weights=model)
    assert not trainer._source.state


def test_the_trainer_of_the_task_is_chosen() -> None:
    assert isinstance(QATTrainer.__new__(QATTrainer, overrides={"task": "detect"}), DetectQATTrainer)
