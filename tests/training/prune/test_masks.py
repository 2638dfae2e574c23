"""Zeros hold: through steps of any optimizer, averaging, checkpoints, resuming, QAT and export."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from core_models import checkpoint, tiny_host, write_images
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.torch_utils import ModelEMA

from yoloquant.bridge.checkpoint import STATE_KEY, load_model
from yoloquant.errors import ArtifactError, PruneError, UsageError
from yoloquant.quantization.artifact import Artifact
from yoloquant.sparsity.schedule import Schedule
from yoloquant.sparsity.two_four import check_24, masks_24
from yoloquant.sparsity.unstructured import Sparsity, SparsityScope, apply_masks, magnitude_masks, sparsity_report
from yoloquant.targets.tensorrt.sparse_check import check_onnx_24
from yoloquant.targets.tensorrt.target import TensorRTTarget
from yoloquant.training.prune.masks import Masks, MaskSpec, Pattern
from yoloquant.training.qat.trainer import DetectQATTrainer

HALF = MaskSpec(sparsity=Sparsity(0.5))


def live() -> Any:
    return copy.deepcopy(tiny_host().module).requires_grad_(True)


def zeros_hold(module: Any, masks: Masks) -> bool:
    return all(not bool(module.get_parameter(n).detach().cpu()[~m.cpu()].any()) for n, m in masks.tensors.items())


def optimizers() -> dict[str, Any]:
    return {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    }


def stepping(optimizer: str, model: Any) -> Any:
    return SimpleNamespace(model=model, optimizer=optimizers()[optimizer](model.parameters()), ema=ModelEMA(model))


def step(trainer: Any, masks: Masks | None, *, before: bool = True) -> None:
    """One step along random gradients, as Ultralytics takes it."""
    for parameter in trainer.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    if masks is not None and before:
        masks.before_step(trainer)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    trainer.ema.update(trainer.model)
    if masks is not None:
        masks.after_step(trainer)


@pytest.mark.parametrize("optimizer", optimizers())
@pytest.mark.parametrize("before", [True, False])
def test_no_step_revives_a_weight(optimizer: str, before: bool) -> None:
    model = live()
    trainer = stepping(optimizer, model)
    for _ in range(2):
        step(trainer, None)  # momentum from before there were masks
    masks = Masks.start(model, HALF)
    masks.apply(trainer.ema.ema)
    kept = {n: model.get_parameter(n).detach().clone() for n in masks.tensors}
    for _ in range(3):
        step(trainer, masks, before=before)
        assert zeros_hold(model, masks) and zeros_hold(trainer.ema.ema, masks)
    assert sparsity_report(model).share == pytest.approx(0.5, abs=1e-3)
    for name, mask in masks.tensors.items():  # the others train on
        assert bool((model.get_parameter(name).detach() != kept[name])[mask].any())
    for parameter, state in trainer.optimizer.state.items():
        dropped = next((~m for n, m in masks.tensors.items() if model.get_parameter(n) is parameter), None)
        if dropped is not None:
            buffers = [v for v in state.values() if isinstance(v, torch.Tensor) and v.shape == dropped.shape]
            assert buffers and not any(bool(b[dropped].any()) for b in buffers)


def test_masked_gradients_count_for_nothing() -> None:
    model = live()
    masks = Masks.start(model, HALF)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    masks.before_step(SimpleNamespace(model=model))
    for name, mask in masks.tensors.items():
        gradient = model.get_parameter(name).grad
        assert bool(gradient[mask].isinf().all()) and not bool(gradient[~mask].any())


def test_the_schedule_is_followed_and_zeros_never_return() -> None:
    schedule = Schedule(0.6, start=2, end=10, every=3, initial=0.1)
    model = live()
    trainer = stepping("sgd", model)
    masks = Masks.start(model, MaskSpec(schedule=schedule))
    assert masks.tensors == {} and masks.spec.sparsity.amount == 0.6
    before: dict[str, torch.Tensor] = {}
    for number in range(1, 14):
        step(trainer, masks)
        assert masks.steps == number and masks.done is (number >= 10)
        assert masks.amount == pytest.approx(schedule.at(number), abs=1e-3)
        assert zeros_hold(model, masks) and zeros_hold(trainer.ema.ema, masks)
        assert all(not bool((masks.tensors[n] & ~m).any()) for n, m in before.items())
        before = dict(masks.tensors)


def test_an_amount_that_cannot_be_reached_is_refused_at_the_start() -> None:
    spec = MaskSpec(sparsity=Sparsity(0.9, SparsityScope.GLOBAL), schedule=Schedule(0.9999, end=100))
    with pytest.raises(PruneError, match="largest amount"):
        Masks.start(live(), spec)


def test_two_four_and_kept_zeros() -> None:
    model = live()
    masks = Masks.start(model, MaskSpec(Pattern.TWO_FOUR, Sparsity(ignored=("model.2.*",))))
    assert masks.done and not masks.step(model)
    assert masks.tensors.keys() == masks_24(live(), ("model.2.*",)).masks.keys()
    assert all(check_24(model.get_parameter(n)).ok for n in masks.tensors)
    kept = Masks.start(model, MaskSpec(Pattern.KEEP))
    assert all(torch.equal(kept.tensors[n], m) for n, m in masks.tensors.items())
    with pytest.raises(PruneError, match="this one is dense"):
        Masks.start(live(), MaskSpec(Pattern.KEEP))
    with pytest.raises(UsageError, match="pattern=magnitude"):
        MaskSpec(Pattern.TWO_FOUR, schedule=Schedule(0.5))


SPECS = [
    HALF,
    MaskSpec(Pattern.TWO_FOUR),
    MaskSpec(sparsity=Sparsity(0.3, SparsityScope.LAYER, ("model.2.*",)), schedule=Schedule(0.3, end=9, every=2)),
]


@pytest.mark.parametrize("spec", SPECS)
def test_state_is_plain_and_comes_back(spec: MaskSpec, tmp_path: Path) -> None:
    model = live()
    masks = Masks.start(model, spec)
    masks.steps = 7
    torch.save(masks.to_plain(), tmp_path / "state.pt")
    dense = live()
    found = Masks.from_plain(torch.load(tmp_path / "state.pt", weights_only=True), dense)
    assert found.spec == spec and found.steps == 7 and found.tensors.keys() == masks.tensors.keys()
    assert all(torch.equal(found.tensors[n], m) for n, m in masks.tensors.items())
    assert zeros_hold(dense, masks)


def damage(state: dict[str, Any], kind: str) -> Any:
    name = next(iter(state["masks"]))
    entry = state["masks"][name]
    if kind == "no steps":
        del state["steps"]
    elif kind == "another shape":
        entry["shape"] = [1, *entry["shape"][1:]]
    elif kind == "a byte less":
        entry["bits"] = entry["bits"][:-1]
    elif kind == "another layer":
        state["masks"]["model.99.weight"] = state["masks"].pop(name)
    elif kind == "an unknown pattern":
        state["spec"]["pattern"] = "stripes"
    elif kind == "too much":
        state["spec"]["amount"] = 3.0
    elif kind == "an unknown setting":
        state["spec"]["schedule"] = {"amount": 0.5, "colour": "red"}
    elif kind == "a negative step":
        state["steps"] = -1
    else:
        return [state]
    return state


@pytest.mark.parametrize(
    "kind",
    [
        *("no steps", "another shape", "a byte less", "another layer", "an unknown pattern", "too much"),
        *("an unknown setting", "a negative step", "a list"),
    ],
)
def test_damaged_state_is_refused(kind: str) -> None:
    state = damage(Masks.start(live(), HALF).to_plain(), kind)
    with pytest.raises(ArtifactError, match="masks are damaged or of another model"):
        Masks.from_plain(state, live())


# -- real training


class Masked:
    """The wiring of a trainer, as small as it can be."""

    masks: Masks | None = None
    spec: MaskSpec

    def optimizer_step(self) -> None:
        assert self.masks is not None
        self.masks.before_step(self)
        super().optimizer_step()  # type: ignore[misc]
        self.masks.after_step(self)


class SparseTrainer(Masked, DetectionTrainer):  # type: ignore[misc]
    """Ultralytics' own trainer with masks; their state lies beside the model in last.pt."""

    spec = MaskSpec(sparsity=Sparsity(0.6), schedule=Schedule(0.6, end=5, every=2, initial=0.2))

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        model: nn.Module = super().get_model(cfg, weights, verbose)
        found = torch.load(self.args.model, weights_only=False).get("masks") if self.resume else None
        self.masks = Masks.start(model, self.spec) if found is None else Masks.from_plain(found, model)
        return model

    def save_model(self) -> Any:
        super().save_model()
        content = torch.load(self.last, weights_only=False)
        assert self.masks is not None
        torch.save({**content, "masks": self.masks.to_plain()}, self.last)


class SparseQATTrainer(Masked, DetectQATTrainer):
    """Quantization-aware training of a model that comes with zeros."""

    spec = MaskSpec(Pattern.KEEP)

    def setup_model(self) -> Any:
        found = super().setup_model()
        self.masks = Masks.start(self.model, self.spec)
        return found


class Killed(BaseException):
    """What no code catches, like a signal."""


def arguments(source: tuple[Path, Path], folder: Path, **changes: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"model": str(source[0]), "data": str(source[1]), "project": str(folder), "name": "run"}
    fixed = {"task": "detect", "mode": "train", "imgsz": 64, "batch": 4, "device": "cpu", "workers": 0, "plots": False}
    return {**common, **fixed, "exist_ok": True, "optimizer": "SGD", "momentum": 0.9, "lr0": 0.01, **changes}


def kill_after_first_epoch(trainer: Any) -> None:
    if trainer.epoch == 0:
        raise Killed


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("source")
    return checkpoint(root / "float.pt"), write_images(root / "data", train=9, val=4)


@pytest.mark.slow
def test_a_float_run_is_killed_resumed_and_ends_sparse(source: tuple[Path, Path], tmp_path: Path) -> None:
    trainer = SparseTrainer(overrides=arguments(source, tmp_path, epochs=3, nbs=4, amp=False, warmup_epochs=0))
    trainer.add_callback("on_fit_epoch_end", kill_after_first_epoch)
    trainer.add_callback("on_model_save", kill_after_first_epoch)
    with pytest.raises(Killed):
        trainer.train()
    half = trainer.masks
    assert half is not None and not half.done and half.steps == 3
    last = tmp_path / "run" / "weights" / "last.pt"
    stored = Masks.from_plain(torch.load(last, weights_only=False)["masks"])
    assert stored.steps == 3 and all(torch.equal(stored.tensors[n], m) for n, m in half.tensors.items())

    resumed = SparseTrainer(overrides={"resume": str(last), "model": str(last), "task": "detect", "mode": "train"})
    resumed.train()
    masks = resumed.masks
    assert masks is not None and masks.steps == 9 and masks.done
    assert all(not bool((masks.tensors[n] & ~m).any()) for n, m in half.tensors.items())
    assert masks.amount == pytest.approx(0.6, abs=1e-3)
    for module in (resumed.model, resumed.ema.ema, load_model(last).module):
        assert zeros_hold(module, masks)
    assert sparsity_report(load_model(last).module).share == pytest.approx(0.6, abs=2e-3)
    trained = load_model(last).module.state_dict()
    assert any(not torch.equal(v, trained[k]) for k, v in load_model(source[0]).module.state_dict().items())


@pytest.mark.slow
def test_a_2_4_model_stays_so_through_qat_and_export(source: tuple[Path, Path], tmp_path: Path) -> None:
    module = live()
    planned = masks_24(module).masks
    apply_masks(module, planned)
    sparse = checkpoint(tmp_path / "sparse.pt", module)
    qat = {"preset": "fast", "images": 8, "loss": "both", "float_val": False, "learn_offset": True}
    given = arguments((sparse, source[1]), tmp_path, epochs=2, mosaic=0.0, qat=qat)
    trainer = SparseQATTrainer(overrides=given)
    trainer.add_callback("on_fit_epoch_end", kill_after_first_epoch)
    with pytest.raises(Killed):
        trainer.train()
    weights = tmp_path / "run" / "weights"
    resumed = SparseQATTrainer(overrides={"task": "detect", "mode": "train", "resume": str(weights / "last.pt")})
    resumed.train()
    assert resumed.start_epoch == 1
    for module in (resumed.model, resumed.ema.ema):
        assert all(check_24(module.get_parameter(n)).ok for n in planned)
    for path in (weights / "best.pt", weights / "last.pt"):
        artifact = Artifact.load(path)
        assert all(check_24(artifact.model.module.get_parameter(n)).ok for n in planned)
        exported = TensorRTTarget(compile_check=False).export(artifact, tmp_path, path.stem)
        found = check_onnx_24(exported.path, planned)
        assert found.ok and set(found.quantized) == set(planned)
    before = load_model(sparse).module.state_dict()
    trained = load_model(weights / "last.pt").module.state_dict()
    assert any(not torch.equal(trained[n], before[n]) for n in planned)
    assert STATE_KEY in torch.load(weights / "last.pt", weights_only=False)


@pytest.mark.slow
def test_without_masks_training_fills_the_zeros(source: tuple[Path, Path], tmp_path: Path) -> None:
    """What masks are for: the same run without them ends dense."""
    module = live()
    apply_masks(module, magnitude_masks(module, Sparsity(0.5)))
    sparse = checkpoint(tmp_path / "sparse.pt", module)
    trainer = DetectionTrainer(
        overrides=arguments((sparse, source[1]), tmp_path, epochs=1, nbs=4, amp=False, warmup_epochs=0)
    )
    trainer.train()
    assert sparsity_report(trainer.model).share < 0.05
