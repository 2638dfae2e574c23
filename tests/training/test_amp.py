"""Mixed precision: bfloat16 autocast on the CPU, a gradient scaler, and what the kernels do on a GPU."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from core_models import checkpoint, write_images
from torch import Tensor
from train_runs import live, planned, run
from ultralytics.engine import trainer as engine

from yoloquant import api
from yoloquant.quantization.artifact import Artifact
from yoloquant.training.distillation.criterion import DistillationCriterion
from yoloquant.training.distillation.distill import FeatureExtractor, Teacher, head_outputs
from yoloquant.training.qat import fake_quant as kernels
from yoloquant.training.qat import fake_quant_chunked as kernels_chunks
from yoloquant.training.qat import fake_quant_eager as kernels_passes
from yoloquant.training.qat.fake_quant import FakeQuantize, FakeQuantizeChannels, FakeQuantizeSiLU, IntegerGrid
from yoloquant.training.qat.prepare import prepare_qat, ranges_of
from yoloquant.training.qat.qat_options import QATOptions

COMMON = {"imgsz": 64, "batch": 4, "epochs": 1, "device": "cpu", "plots": False, "workers": 0, "exist_ok": True}
INT8 = IntegerGrid(-128, 127)
RANGES = ((0.03, -20.0), (1 / 256, -128.0), (0.02, -100.0))  # of a SiLU's input, its sigmoid and its product
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")


# -- one step


def step(model: Any, images: Tensor, *, autocast: bool, loss_scale: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one distillation step, as Ultralytics' trainer takes it."""
    model.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale, enabled=loss_scale != 1.0)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss, _ = model.loss({"img": images})
    scaler.scale(loss.sum()).backward()
    scaler.unscale_(optimizer)
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def student() -> Any:
    """A quantized student with a teacher that is not quite itself, so that there is something to learn."""
    artifact, plan = planned()
    model = live(artifact)
    prepare_qat(model, artifact.graph, plan)
    outputs = head_outputs(model, artifact.graph)
    float_model = live(artifact)
    with torch.no_grad():
        for p in float_model.parameters():
            p.mul_(1.05)
    teacher = Teacher(float_model, outputs, model)
    model.criterion = DistillationCriterion(
        host=None, options=QATOptions(), teacher=teacher, tap=FeatureExtractor(model, outputs)
    )
    model.model[-1].training = True
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def test_autocast_keeps_ranges_in_float32_and_gradients_close(student: Any, images: Tensor) -> None:
    plain_loss, plain = step(student, images, autocast=False)
    loss, found = step(student, images, autocast=True)
    assert torch.isfinite(loss) and loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(plain_loss), rel=0.1)
    assert list(found) == list(plain)
    for name, value in student.state_dict().items():
        if name.startswith("quantizers.") and not name.endswith("zero"):
            assert value.dtype == torch.float32, name
    # a range's gradient hangs on the few values that it clips, and which ones these are changes with every rounding
    for kind, least in (("log_ratio", 0.8), ("conv.weight", 0.95), ("bn.weight", 0.95), ("bias", 0.95)):
        names = [n for n in plain if n.endswith(kind)]
        a, b = (torch.cat([g[n].flatten() for n in names]) for g in (plain, found))
        assert names and b.dtype == torch.float32 and torch.isfinite(b).all()
        assert float(torch.cosine_similarity(a, b, dim=0)) > least, kind


def test_autocast_computes_in_bfloat16_between_the_quantizers(student: Any, images: Tensor) -> None:
    seen: list[torch.dtype] = []
    handle = student.model[2].register_forward_hook(lambda m, a, out: seen.append(out.dtype))
    step(student, images, autocast=True)
    handle.remove()
    assert seen == [torch.bfloat16]
    teacher = student.criterion.teacher
    with torch.autocast("cpu", dtype=torch.bfloat16):
        shown = teacher(images)
    plain = teacher(images)
    assert {v.dtype for v in plain.values()} == {torch.float32}
    assert all(torch.isfinite(v).all() and v.shape == plain[k].shape for k, v in shown.items())


@pytest.mark.parametrize("autocast", [False, True])
def test_scaling_the_loss_changes_no_gradient(student: Any, images: Tensor, autocast: bool) -> None:
    """Powers of two scale exactly, the gradients of the ranges included."""
    _, plain = step(student, images, autocast=autocast)
    _, found = step(student, images, autocast=autocast, loss_scale=2.0**14)
    for name, gradient in plain.items():
        bound = 1e-6 * float(gradient.abs().max())  # numbers too small for float32 are lost without scaling only
        assert torch.allclose(found[name], gradient, rtol=1e-6, atol=bound), name


# -- whole runs


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("source")
    return checkpoint(root / "float.pt"), write_images(root / "data", train=8, val=4)


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Turns Ultralytics' mixed precision on for the CPU, loss scaling included; returns the scalers that it made."""
    made: list[Any] = []
    real = torch.amp.GradScaler

    def scaler(device: str, enabled: bool) -> Any:
        made.append(real("cpu", enabled=enabled))
        return made[-1]

    def autocast(enabled: Any, device: str) -> Any:
        return torch.autocast(device, dtype=torch.bfloat16, enabled=bool(enabled))

    monkeypatch.setattr(engine, "check_amp", lambda model: True)
    monkeypatch.setattr(engine, "autocast", autocast)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    return made


@pytest.mark.slow
def test_a_whole_run_of_quantization_aware_training(
    source: tuple[Path, Path], mixed: list[Any], tmp_path: Path
) -> None:
    dtypes = set()

    def note(trainer: Any) -> None:
        criterion = trainer.model.criterion
        dtypes.update(v.dtype for v in criterion.tap.values.values())
        real = criterion.tap.take

        def take() -> Any:
            found = real()
            dtypes.update(v.dtype for v in found.values())
            return found

        criterion.tap.take = take

    qat = {"preset": "fast", "images": 8, "loss": "both", "range_lr": 0.01}
    trainer = run(*source, tmp_path, amp=True, qat=qat, lr0=1e-3, callbacks={"on_train_start": note})
    assert trainer.amp and mixed[-1].is_enabled() and mixed[-1].get_scale() >= 2.0**16
    assert dtypes == {torch.bfloat16}
    last = Artifact.load(trainer.last)
    assert {v.dtype for v in last.model.module.state_dict().values() if v.is_floating_point()} == {torch.float32}
    plan = next(iter(last.plans.values()))
    learned = [p for p in plan.points if p.algorithm == "learned"]
    assert len(learned) > 50 and all(p.params is not None and str(p.params.scale.dtype) == "float32" for p in learned)
    assert any(a.params != b.params for a, b in zip(plan.points, trainer.plan.points, strict=True))
    live_ranges = ranges_of(trainer.ema.ema)
    assert all(live_ranges[p.name].qparams() == p.params for p in learned)
    assert api.export(last, targets="onnxruntime", output=tmp_path / "exports").exports


@pytest.mark.slow
def test_a_whole_run_of_pruning_with_distillation(source: tuple[Path, Path], mixed: list[Any], tmp_path: Path) -> None:
    prune = {"amount": 0.5, "round_to": 2, "images": 4, "criterion": "l2"}
    arguments = {**COMMON, "project": str(tmp_path), "name": "run", "amp": True}
    result = api.train(source[0], data=source[1], prune=prune, **arguments)
    assert mixed[-1].is_enabled()
    rows = (result.folder / "results.csv").read_text().splitlines()
    assert "distill_box" in rows[0] and "nan" not in rows[1]
    assert api.export(api.quantize(result.best, data=source[1]), targets="onnxruntime", output=tmp_path / "x").exports


@pytest.mark.slow
def test_weights_in_another_memory_format_are_written_in_the_common_one(
    source: tuple[Path, Path], tmp_path: Path
) -> None:
    """On CUDA Ultralytics trains channels-last models; its releases cannot fuse such weights from a file."""

    def rearrange(trainer: Any) -> None:
        trainer.model.to(memory_format=torch.channels_last)
        trainer.ema.ema.to(memory_format=torch.channels_last)

    trainer = run(*source, tmp_path, callbacks={"on_train_start": rearrange})
    for path in (trainer.best, trainer.last):
        module = Artifact.load(path).model.module
        assert all(p.is_contiguous() for p in module.parameters())
    assert any(not p.is_contiguous() for p in trainer.ema.ema.parameters())


# -- what a GPU does instead


class _Elsewhere(Tensor):
    """A scalar that says it is not on the CPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")


def results(move: Any, shape: tuple[int, ...] = (2, 6, 9, 7), dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Outputs and gradients of every kernel; ``move`` gets each tensor first."""
    generator = torch.Generator().manual_seed(3)
    x, upstream = (3 * torch.randn(2, *shape, generator=generator)).to(dtype)
    found: list[Tensor] = []
    given: list[Tensor] = [move(x).detach().requires_grad_()]
    given += [move(torch.tensor(v)).detach().requires_grad_() for pair in RANGES for v in pair]
    out = FakeQuantizeSiLU.apply(given[0], (INT8, INT8, INT8), *given[1:])
    found += [out, *torch.autograd.grad(out, given, move(upstream))]
    out = FakeQuantize.apply(*given[:3], INT8)
    found += [out, *torch.autograd.grad(out, given[:3], move(upstream))]
    weight = [move(x).detach().requires_grad_(), move(torch.linspace(0.01, 0.1, shape[1])).reshape(1, -1, 1, 1)]
    weight[1] = weight[1].detach().requires_grad_()
    out = FakeQuantizeChannels.apply(*weight, IntegerGrid(-127, 127))
    found += [out, *torch.autograd.grad(out, weight, move(upstream))]
    return [f.detach().cpu() for f in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [97, 1 << 24])
def test_the_branches_of_a_gpu_are_bit_for_bit_those_of_a_cpu(
    chunk: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits that stay tensors, whatever the chunk."""
    monkeypatch.setattr(kernels, "_fused", lambda: None)
    monkeypatch.setattr(kernels_chunks, "_CPU_CHUNK", chunk)
    for name in ("_FORWARD_TABLE_THREADS", "_BACKWARD_TABLE_THREADS"):
        monkeypatch.setattr(kernels_passes, name, 1 << 20)
    wanted = results(lambda t: t, dtype=dtype)
    found = results(lambda t: t if t.dim() else t.as_subclass(_Elsewhere), dtype=dtype)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert torch.equal(a.as_subclass(Tensor), b), number


@pytest.mark.parametrize("chunk", [97, 1 << 24])
def test_chunks_and_tables_change_no_value(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU looks everything up, in few large chunks; a CPU with many threads computes everything."""
    monkeypatch.setattr(kernels, "_fused", lambda: None)
    found = []
    for size, threads in ((chunk, 0), (1 << 20, 1 << 20)):
        monkeypatch.setattr(kernels_chunks, "_CPU_CHUNK", size)
        for name in ("_FORWARD_TABLE_THREADS", "_BACKWARD_TABLE_THREADS"):
            monkeypatch.setattr(kernels_passes, name, threads)
        found.append(results(lambda t: t))
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        if number in (0, 8, 12):  # what comes out
            assert torch.equal(a, b), number
        else:  # sums in another order
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * max(float(b.abs().max()), 1.0)), number


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_gpu_computes_what_the_cpu_computes(dtype: torch.dtype) -> None:
    on_cpu, on_gpu = results(lambda t: t, dtype=dtype), results(lambda t: t.cuda(), dtype=dtype)
    for number, (a, b) in enumerate(zip(on_cpu, on_gpu, strict=True)):
        assert a.dtype == b.dtype and torch.isfinite(b).all()
        if a.dim() == 4:  # a sigmoid's last bit may turn a rounding
            assert float((a != b).float().mean()) < 0.01, number
        else:
            assert torch.allclose(a, b, rtol=1e-2), number


@needs_cuda
def test_a_gpu_quantizes_the_model_as_the_cpu_does() -> None:
    artifact, plan = planned()
    model = live(artifact)
    prepare_qat(model, artifact.graph, plan)
    other = copy.deepcopy(artifact.model.module).requires_grad_(True).eval().cuda()
    prepare_qat(other, artifact.graph, plan)
    for name, value in ranges_of(model).items():
        assert value.qparams() == ranges_of(other)[name].qparams()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        a, b = model(images)[0], other(images.cuda())[0].cpu()
    assert float((a - b).abs().mean()) < 0.01 * float(a.abs().mean())


@needs_cuda
@pytest.mark.slow
def test_an_epoch_with_mixed_precision_on_a_gpu(
    source: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "check_amp", lambda model: True)  # Ultralytics' check downloads a model
    qat = {"preset": "fast", "images": 8, "loss": "both", "range_lr": 0.01}
    trainer = run(*source, tmp_path, device="0", amp=True, qat=qat)
    assert trainer.amp and trainer.scaler.is_enabled()
    last = Artifact.load(trainer.last)
    assert all(p.is_contiguous() for p in last.model.module.parameters())
    assert api.export(last, targets="onnxruntime", output=tmp_path / "exports").exports
