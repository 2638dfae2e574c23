"""Fake quantization with gradients: PyTorch's own results bit for bit, and the gradients of a plain reference."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from yoloquant.training.qat import fake_quant as kernels
from yoloquant.training.qat import fake_quant_chunked as kernels_chunks
from yoloquant.training.qat.fake_quant import (
    FakeQuantize,
    FakeQuantizeChannels,
    FakeQuantizeSiLU,
    IntegerGrid,
    ScaleGradient,
)
from yoloquant.training.qat.function_hooks import fold

INT8 = IntegerGrid(-128, 127)
SHAPES = ((), (1,), (0,), (97,), (98,), (3, 5), (1, 1, 1, 1), (2, 3, 7, 11), (2, 8, 4, 4), (2, 0, 4))
LAYOUTS = ("plain", "transposed", "channels_last", "strided", "offset")


@pytest.fixture(autouse=True, scope="module", params=["passes", "fused"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything is computed in both ways."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "passes":
            patch.setattr(kernels, "_fused", lambda: None)
            patch.setattr(kernels_chunks, "_CPU_CHUNK", 97)  # most tensors take several chunks, the last one not full
        else:
            pytest.importorskip("numba", reason="the compiled loops need numba")
            patch.setattr(kernels_fused(), "_MIN_BLOCKS", 1)
        yield request.param


def kernels_fused() -> Any:
    from yoloquant.training.qat import fake_quant_fused as found

    return found


def scalar(value: float, grad: bool = False) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, requires_grad=grad)


def values(shape: tuple[int, ...], seed: int, layout: str = "plain", spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * spread
    if layout == "transposed" and x.dim() > 1:
        return x.transpose(0, -1)
    if layout == "channels_last" and x.dim() == 4:
        return x.to(memory_format=torch.channels_last)
    if layout == "strided" and x.dim() >= 1:
        return x.repeat_interleave(2, 0)[::2]
    if layout == "offset" and x.dim() >= 1:
        return torch.cat([x[:1], x])[1 if len(x) else 0 :]
    return x


def on_torch(x: Tensor, scale: float, zero: float, grid: IntegerGrid) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, int(zero), grid.qmin, grid.qmax)


def straight_through(x: Tensor, scale: Tensor, zero: Tensor, grid: IntegerGrid) -> Tensor:
    """LSQ and LSQ+ as their papers write them, by autograd on a sum of terms whose values cancel."""
    position = x * (1.0 / scale.detach())
    rounded = position.round() + zero
    q = rounded.clamp(grid.qmin, grid.qmax)
    inside = (rounded == q).float().detach()
    steps = (q - zero).detach()
    value = steps * scale.detach() + inside * (x - x.detach())
    by_scale = (steps - inside * position.detach()) * (scale - scale.detach())
    return value + by_scale - (1 - inside) * scale.detach() * (zero - zero.detach())


def close(found: Tensor | None, wanted: Tensor | None) -> bool:
    assert found is not None and wanted is not None
    return torch.allclose(found, wanted, rtol=2e-4, atol=2e-4 * max(float(wanted.abs().max()), 0.1))


scales = st.floats(2.0**-13, 16.0, width=32)
bits = st.integers(2, 8)


@settings(deadline=None, max_examples=80)
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), scale=scales, width=bits, data=st.data())
def test_forward_is_torch_s_bit_for_bit(
    shape: tuple[int, ...], layout: str, scale: float, width: int, data: st.DataObject
) -> None:
    grid = IntegerGrid(-(1 << (width - 1)), (1 << (width - 1)) - 1)
    zero = data.draw(st.integers(grid.qmin, grid.qmax))
    x = values(shape, data.draw(st.integers(0, 99)), layout)
    found = FakeQuantize.apply(x, scalar(scale), scalar(zero), grid)
    wanted = on_torch(x, scale, zero, grid)
    assert torch.equal(found, wanted) and found.shape == x.shape and found.dtype == x.dtype


def test_halves_between_two_integers_round_to_even_as_in_torch() -> None:
    x = (torch.arange(-300, 300) / 2).reshape(2, 300)
    assert torch.equal(FakeQuantize.apply(x, scalar(1.0), scalar(0), INT8), on_torch(x, 1.0, 0, INT8))


def test_memory_format_stays() -> None:
    x = values((2, 8, 4, 4), 0, "channels_last")
    found = FakeQuantize.apply(x, scalar(0.1), scalar(0), INT8)
    assert found.is_contiguous(memory_format=torch.channels_last)
    silu = FakeQuantizeSiLU.apply(x, (INT8, INT8, INT8), *[scalar(v) for v in (0.1, 0, 1 / 256, -128, 0.1, 0)])
    assert silu.is_contiguous(memory_format=torch.channels_last)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.sampled_from([(4, 3, 3, 3), (1, 5), (7, 1, 1, 1), (6, 10)]),
    axis=st.integers(0, 1),
    width=bits,
    seed=st.integers(0, 99),
)
def test_forward_per_channel_is_torch_s_bit_for_bit(shape: tuple[int, ...], axis: int, width: int, seed: int) -> None:
    x = values(shape, seed)
    grid = IntegerGrid(-(1 << (width - 1)) + 1, (1 << (width - 1)) - 1)
    scale = torch.rand(shape[axis], generator=torch.Generator().manual_seed(seed)) * 0.3 + 1e-3
    wanted = torch.fake_quantize_per_channel_affine(
        x, scale, torch.zeros(shape[axis], dtype=torch.int32), axis, grid.qmin, grid.qmax
    )
    broad = scale.reshape([-1 if i == axis else 1 for i in range(x.dim())])
    assert torch.equal(FakeQuantizeChannels.apply(x, broad, grid), wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("scale", "zero"), [(0.02, -20.0), (0.5, 0.0), (0.004, 127.0)])
def test_gradients_are_those_of_the_papers(layout: str, scale: float, zero: float) -> None:
    x = values((2, 3, 7, 11), 1, layout).requires_grad_()
    other = x.detach().clone().requires_grad_()
    grad = values((2, 3, 7, 11), 2, layout)
    found, wanted = [(scalar(scale, True), scalar(zero, True)) for _ in range(2)]
    FakeQuantize.apply(x, *found, INT8).backward(grad)
    straight_through(other, *wanted, INT8).backward(grad)
    assert torch.equal(x.grad, other.grad)
    assert close(found[0].grad, wanted[0].grad) and close(found[1].grad, wanted[1].grad)


def test_only_the_wanted_gradients_are_computed() -> None:
    x = values((3, 5), 0).requires_grad_()
    scale, zero = scalar(0.1), scalar(0, True)
    FakeQuantize.apply(x, scale, zero, INT8).sum().backward()
    assert scale.grad is None and zero.grad is not None and x.grad is not None


def test_a_gradient_in_another_memory_format_is_taken() -> None:
    x = values((2, 8, 4, 4), 0, "channels_last").requires_grad_()
    plain = values((2, 8, 4, 4), 1)
    FakeQuantize.apply(x, scalar(0.05), scalar(0), INT8).backward(plain)
    inside = (x / 0.05).round().abs() <= 127
    assert torch.equal(x.grad, plain * inside)
    x.grad = None
    FakeQuantize.apply(x, scalar(100.0), scalar(0), INT8).sum().backward()  # an expanded gradient without strides
    assert torch.equal(x.grad, torch.ones_like(x))


def test_gradients_per_channel_are_those_of_the_paper() -> None:
    x = values((6, 4, 3, 3), 3, spread=1.0).requires_grad_()
    other = x.detach().clone().requires_grad_()
    start = torch.linspace(0.003, 0.1, 6).reshape(-1, 1, 1, 1)
    found, wanted = start.clone().requires_grad_(), start.clone().requires_grad_()
    grad = values((6, 4, 3, 3), 4)
    grid = IntegerGrid(-7, 7)
    FakeQuantizeChannels.apply(x, found, grid).backward(grad)
    straight_through(other, wanted, torch.zeros_like(start), grid).backward(grad)
    assert torch.equal(x.grad, other.grad) and close(found.grad, wanted.grad)


# -- SiLU

PRESENT = [(a, b, c) for a in (True, False) for b in (True, False) for c in (True, False)]
RANGES = ((0.03, -20.0), (1 / 256, -128.0), (0.02, -100.0))


def gate(
    present: tuple[bool, ...], width: int = 8, grad: bool = False
) -> tuple[tuple[IntegerGrid | None, ...], list[Tensor | None]]:
    first = IntegerGrid(-(1 << (width - 1)), (1 << (width - 1)) - 1)
    grids = tuple(g if p else None for p, g in zip(present, (first, INT8, INT8), strict=True))
    parameters: list[Tensor | None] = []
    for p, pair in zip(present, RANGES, strict=True):
        parameters += [scalar(v, grad) if p else None for v in pair]
    if present[0] and width < 8:
        parameters[0], parameters[1] = scalar(0.03 * 2 ** (8 - width), grad), scalar(0.0, grad)
    return grids, parameters


def long_way(x: Tensor, grids: tuple[IntegerGrid | None, ...], parameters: list[Tensor | None]) -> Tensor:
    def q(v: Tensor, which: int) -> Tensor:
        grid, scale, zero = grids[which], parameters[2 * which], parameters[2 * which + 1]
        return v if grid is None else on_torch(v, float(scale), float(zero), grid)  # type: ignore[arg-type]

    y = q(x, 0)
    return q(y * q(torch.sigmoid(y), 1), 2)


@pytest.mark.parametrize("present", PRESENT)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_silu_is_the_chain_of_its_three_quantizers_bit_for_bit(present: tuple[bool, ...], layout: str) -> None:
    x = values((2, 3, 7, 11), 5, layout)
    grids, parameters = gate(present)
    found, wanted = FakeQuantizeSiLU.apply(x, grids, *parameters), long_way(x, grids, parameters)
    if present[1] or present[2]:
        assert torch.equal(found, wanted)
    else:  # a bare sigmoid's last bit depends on where in a vector register a value stands
        assert torch.allclose(found, wanted, rtol=1e-6, atol=0)


@settings(deadline=None, max_examples=40)
@given(scale=st.floats(2.0**-10, 1.0, width=32), width=bits, seed=st.integers(0, 99), data=st.data())
def test_the_table_holds_what_the_chain_computes(scale: float, width: int, seed: int, data: st.DataObject) -> None:
    grid = IntegerGrid(-(1 << (width - 1)), (1 << (width - 1)) - 1)
    zero = data.draw(st.integers(grid.qmin, grid.qmax))
    grids, parameters = (grid, INT8, INT8), [scalar(v) for v in (scale, zero, 1 / 256, -128, 0.02, -100)]
    x = values((5, 41), seed)
    assert torch.equal(FakeQuantizeSiLU.apply(x, grids, *parameters), long_way(x, grids, parameters))  # type: ignore[arg-type]


@pytest.mark.parametrize("present", PRESENT)
@pytest.mark.parametrize("width", [8, 4])
def test_silu_gradients_are_those_of_the_chain(present: tuple[bool, ...], width: int) -> None:
    x = values((2, 3, 7, 11), 6).requires_grad_()
    other = x.detach().clone().requires_grad_()
    grids, found = gate(present, width, grad=True)
    _, wanted = gate(present, width, grad=True)
    grad = values((2, 3, 7, 11), 7)
    FakeQuantizeSiLU.apply(x, grids, *found).backward(grad)

    def q(v: Tensor, which: int) -> Tensor:
        grid = grids[which]
        return v if grid is None else straight_through(v, wanted[2 * which], wanted[2 * which + 1], grid)  # type: ignore[arg-type]

    y = q(other, 0)
    q(y * q(torch.sigmoid(y), 1), 2).backward(grad)
    assert close(x.grad, other.grad)
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert close(a.grad, b.grad)


def test_silu_without_any_quantizer_is_silu() -> None:
    x = values((2, 50), 8).requires_grad_()
    other = x.detach().clone().requires_grad_()
    FakeQuantizeSiLU.apply(x, (None, None, None), *[None] * 6).sum().backward()
    torch.nn.functional.silu(other).sum().backward()
    assert torch.allclose(x.grad, other.grad, atol=1e-6)


# -- dtypes, modes, odd values


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_keep_their_dtype_and_are_close(dtype: torch.dtype) -> None:
    x = values((2, 3, 7, 11), 9).to(dtype).requires_grad_()
    scale, zero = scalar(0.05, True), scalar(3.0, True)
    found = FakeQuantize.apply(x, scale, zero, INT8)
    wanted = on_torch(x.detach().float(), 0.05, 3.0, INT8)
    assert found.dtype == dtype and torch.equal(found, wanted.to(dtype))
    found.backward(torch.ones_like(found))
    assert x.grad.dtype == dtype and scale.grad.dtype == torch.float32 and torch.isfinite(scale.grad)
    grids, parameters = gate((True, True, True))
    silu = FakeQuantizeSiLU.apply(x, grids, *parameters)
    assert silu.dtype == dtype and torch.equal(silu, long_way(x.detach().float(), grids, parameters).to(dtype))
    weights = FakeQuantizeChannels.apply(x, torch.full((2, 1, 1, 1), 0.05), INT8)
    assert weights.dtype == dtype
    assert torch.allclose(weights.float(), on_torch(x.detach().float(), 0.05, 0, INT8), atol=0.06)


@pytest.fixture(params=[torch.no_grad, torch.inference_mode])
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
        yield


@pytest.mark.usefixtures("mode")
def test_runs_without_gradients() -> None:
    x = values((3, 50), 10)
    assert torch.equal(FakeQuantize.apply(x, scalar(0.1), scalar(0), INT8), on_torch(x, 0.1, 0, INT8))
    grids, parameters = gate((True, True, True))
    assert torch.equal(FakeQuantizeSiLU.apply(x, grids, *parameters), long_way(x, grids, parameters))


def test_scratch_memory_of_inference_serves_training_afterwards() -> None:
    kernels_chunks._local.__dict__.clear()
    x = values((4, 200), 11)
    grids, parameters = gate((True, True, True))
    with torch.inference_mode():
        FakeQuantizeSiLU.apply(x, grids, *parameters)
    x.requires_grad_()
    FakeQuantizeSiLU.apply(x, grids, *parameters).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_results_do_not_share_scratch_memory() -> None:
    x = values((300,), 12)
    first = FakeQuantize.apply(x, scalar(0.1), scalar(0), INT8)
    before = first.clone()
    FakeQuantize.apply(x * 2, scalar(0.1), scalar(0), INT8)
    grids, parameters = gate((True, True, True))
    silu = FakeQuantizeSiLU.apply(x, grids, *parameters)
    kept = silu.clone()
    FakeQuantizeSiLU.apply(-x, grids, *parameters)
    assert torch.equal(first, before) and torch.equal(silu, kept)


def test_nan_passes_instead_of_becoming_a_number_or_an_index_error() -> None:
    x = values((300,), 13)
    x[150] = float("nan")
    x.requires_grad_()
    grids, parameters = gate((True, True, True), grad=True)
    found = FakeQuantizeSiLU.apply(x, grids, *parameters)
    assert torch.isnan(found[150])
    found.sum().backward()
    assert torch.isnan(FakeQuantize.apply(x, scalar(0.1), scalar(0), INT8)[150])


def test_infinite_values_are_clipped() -> None:
    x = torch.tensor([float("inf"), -float("inf"), 0.0])
    assert FakeQuantize.apply(x, scalar(0.5), scalar(0), INT8).tolist() == [63.5, -64.0, 0.0]
    grids, parameters = gate((True, True, True))
    assert torch.equal(FakeQuantizeSiLU.apply(x, grids, *parameters), long_way(x.clamp(-1e4, 1e4), grids, parameters))


def test_the_size_of_a_scale_s_gradient_is_set_apart_from_its_value() -> None:
    scale = scalar(0.25, True)
    passed = ScaleGradient.apply(scale, 0.125)
    (passed * 3).backward()
    assert float(passed.detach()) == 0.25 and float(scale.grad) == 0.375


# -- weights with their BatchNorm


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (5, 1, 7, 7), (16, 33, 1, 1)])
def test_folding_at_once_is_folding_then_quantizing(shape: tuple[int, ...], bias: bool, way: str) -> None:
    """Forward bit for bit, gradients to the order of summation."""
    norm = torch.nn.BatchNorm2d(shape[0]).eval()
    with torch.no_grad():
        for seed, t in enumerate((norm.weight, norm.bias, norm.running_mean, norm.running_var)):
            t.copy_(values((shape[0],), seed).abs() + 0.1 if t is norm.running_var else values((shape[0],), seed))
    weights = values(shape, 20, spread=0.2).requires_grad_(), values((shape[0],), 21).requires_grad_()
    scale = torch.linspace(0.003, 0.1, shape[0]).requires_grad_()
    given = [*weights, norm.weight, norm.bias, scale]
    start = weights[1] if bias else None
    at_once = kernels.fold_quantize(weights[0], start, norm, scale, IntegerGrid(-127, 127))
    if way == "passes":
        assert at_once is None
        return
    assert at_once is not None
    folded, moved = fold(weights[0], start, norm)
    step_by_step = FakeQuantizeChannels.apply(folded, scale.reshape(-1, 1, 1, 1), IntegerGrid(-127, 127)), moved
    assert all(torch.equal(a, b) for a, b in zip(at_once, step_by_step, strict=True))
    upstream = values(shape, 22).to(memory_format=torch.channels_last), values((shape[0],), 23)
    found, wanted = (torch.autograd.grad(pair, given, upstream, allow_unused=True) for pair in (at_once, step_by_step))
    for a, b in zip(found, wanted, strict=True):
        assert (a is None and b is None) or close(a, b)


def test_one_scale_for_all_channels_is_not_folded_at_once() -> None:
    weight, norm = values((6, 4, 3, 3), 0), torch.nn.BatchNorm2d(6)
    assert kernels.fold_quantize(weight, None, norm, scalar(0.1), INT8) is None
    assert kernels.fold_quantize(weight.half(), None, norm, torch.ones(6), INT8) is None


# -- compiled loops: how they walk memory, and threads

PARTS = {
    "samples": lambda x: x.chunk(2, 1)[1],
    "pixels": lambda x: x.to(memory_format=torch.channels_last).chunk(2, 1)[0],
    "rows": lambda x: x[..., 3:],
    "steps": lambda x: x[..., ::2],
    "expanded": lambda x: x[:1].expand(x.shape),
    "turned": lambda x: x.transpose(1, 2),
}


def both(x: Tensor, grad: Tensor) -> list[Tensor]:
    """Results and gradients of both functions."""
    found: list[Tensor] = []
    grids, parameters = gate((True, True, True), grad=True)
    pair = [scalar(0.02, True), scalar(-20.0, True)]
    for apply, ranges in (
        (lambda v: FakeQuantize.apply(v, *pair, INT8), pair),
        (lambda v: FakeQuantizeSiLU.apply(v, grids, *parameters), parameters),
    ):
        leaf = x.detach().requires_grad_()
        result = apply(leaf)
        found += [result.detach(), *torch.autograd.grad(result, [leaf, *ranges], grad)]
    return found


@pytest.mark.parametrize("x_part", PARTS)
@pytest.mark.parametrize("grad_part", PARTS)
def test_parts_of_other_tensors_are_walked_or_copied(x_part: str, grad_part: str) -> None:
    """Compared with contiguous copies; every part has a shape of its own, which the gradient is cut to."""
    x = PARTS[x_part](values((4, 32, 12, 20), 30))
    grad = PARTS[grad_part](values((4, 64, 48, 48), 31))[:, : x.shape[1], : x.shape[2], : x.shape[3]]
    grad = grad.expand(x.shape) if grad.shape == x.shape else values(tuple(x.shape), 31)
    for a, b in zip(both(x, grad), both(x.contiguous(), grad.contiguous()), strict=True):
        assert torch.equal(a, b) if a.dim() else close(a, b)


def test_results_do_not_depend_on_threads(way: str) -> None:
    x, grad = values((2, 16, 80, 80), 32), values((2, 16, 80, 80), 33)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(both(x, grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        exact = way == "fused"  # passes look up or compute, whichever is faster with so many threads
        assert all(torch.equal(a, b) if exact else close(a, b) for a, b in zip(found[0], other, strict=True))


def test_both_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, grad = values((2, 16, 40, 40), 34), values((2, 16, 40, 40), 35)
    found = both(x, grad)
    monkeypatch.setattr(kernels, "_fused", lambda: None)
    for a, b in zip(found, both(x, grad), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6) if a.dim() else close(a, b)


def test_threads_work_at_the_same_time() -> None:
    """Several threads of a program may run models at once."""
    x = values((2, 16, 80, 80), 36)
    grids, parameters = gate((True, True, True))
    wanted = FakeQuantizeSiLU.apply(x, grids, *parameters)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: FakeQuantizeSiLU.apply(x, grids, *parameters), range(16)))
    assert all(torch.equal(f, wanted) for f in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data loaders fork; what they run must not wait for threads that only their parent has."""
    x = values((2, 16, 80, 80), 37)
    if way == "fused":
        monkeypatch.setattr(kernels_fused(), "_threads", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # OpenMP's own threads do not survive a fork
    try:
        wanted = FakeQuantize.apply(x, scalar(0.1), scalar(0), INT8)
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=quantize_in_child, args=(x, theirs), daemon=True)
        child.start()
        assert ours.poll(60), "the child waits for threads that it has not"
        assert ours.recv() == wanted.flatten()[:100].tolist()
        child.join(60)
        assert child.exitcode == 0
    finally:
        torch.set_num_threads(before)


def quantize_in_child(x: Tensor, connection: Any) -> None:
    connection.send(FakeQuantize.apply(x, scalar(0.1), scalar(0), INT8).flatten()[:100].tolist())


def test_what_compiled_loops_cannot_do_is_done_by_passes(way: str) -> None:
    x = values((3, 50), 38)
    found = [kernels._compiled(v, g) for v, g in ((x, INT8), (x, None), (x.half(), INT8), (x, IntegerGrid(0, 1 << 22)))]
    assert found[1:] == [None] * 3 and (found[0] is not None) is (way == "fused")


def test_without_numba_training_still_works() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch\n"
        "from yoloquant.training.qat.fake_quant import FakeQuantize, IntegerGrid\n"
        "one, zero = torch.tensor(1.0), torch.tensor(0.0)\n"
        "print(FakeQuantize.apply(torch.tensor([0.4, 300.0]), one, zero, IntegerGrid(-128, 127)).tolist())\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[0.0, 127.0]"
