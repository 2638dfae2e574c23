"""Learned ranges: the plan's own until a step is taken, float32 whatever is done to the model."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pair_sums import unsafe_channels
from train_runs import planned

from yoloquant.errors import PlanError
from yoloquant.quantization.observers import compute_weight_qparams
from yoloquant.quantization.plan import Plan, PointKind, Role
from yoloquant.quantization.qparams import QParams, QuantSpec
from yoloquant.quantization.range_options import Algorithm
from yoloquant.training.qat.lsq import LSQQuantizer, learned_plan, learned_ranges

SCHEMES = ("portable", "litert", "tensorrt", "openvino", "onnxruntime")
HEADS = {Role.SCORE, Role.HEAD}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned()[1]


def unique(ranges: dict[str, LSQQuantizer]) -> list[LSQQuantizer]:
    return list({id(r): r for r in ranges.values()}.values())


def disturb(ranges: dict[str, LSQQuantizer], seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for r in unique(ranges):
            for parameter in r.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("heads", [False, True])
def test_before_a_step_ranges_are_the_plan_s_bit_for_bit(scheme: str, offset: bool, heads: bool) -> None:
    plan = planned(scheme=scheme)[1]
    ranges = learned_ranges(plan, offset=offset, heads=heads)
    assert set(ranges) == {p.name for p in plan.points}
    for point in plan.points:
        assert ranges[point.name].qparams() == point.params
        assert ranges[point.name].qparams().scale.dtype == np.float32
    learned = learned_plan(plan, ranges)
    assert [p.params for p in learned.points] == [p.params for p in plan.points]


def test_points_of_a_tie_share_one_object_and_no_others_do(plan: Plan) -> None:
    ranges = learned_ranges(plan)
    ties: dict[str, set[int]] = {}
    for point in plan.points:
        ties.setdefault(point.tie or point.name, set()).add(id(ranges[point.name]))
    assert all(len(found) == 1 for found in ties.values())
    assert any(p.tie for p in plan.points)
    assert len(unique(ranges)) == len(ties)


def test_fixed_and_head_ranges_stay_when_the_host_thaws_everything(plan: Plan) -> None:
    ranges = learned_ranges(planned(scheme="litert")[1], offset=True)
    litert = planned(scheme="litert")[1]
    module = torch.nn.ModuleList(unique(ranges))
    for _, parameter in module.named_parameters():
        parameter.requires_grad_(True)  # what Ultralytics does with every parameter that is not in freeze=
    assert any(p.fixed for p in litert.points)
    for point in litert.points:
        found = ranges[point.name]
        frozen = point.fixed or any(litert.by_name[n].role in HEADS for n in found.names)
        assert found.trainable is not frozen
        assert (len(list(found.parameters())) == 0) is frozen
        if not frozen and point.kind is PointKind.ACTIVATION and not point.spec.symmetric:
            assert found.log_low is not None
    opened = learned_ranges(plan, heads=True)
    assert all(opened[p.name].trainable for p in plan.points if p.role in HEADS)


def test_symmetric_points_learn_no_offset(plan: Plan) -> None:
    assert all(r.log_low is None for r in unique(learned_ranges(plan, offset=True)) if r.spec.symmetric)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casting_the_model_leaves_ranges_in_float32(plan: Plan, cast: str) -> None:
    ranges = learned_ranges(plan)
    disturb(ranges)
    before = {n: r.qparams() for n, r in ranges.items()}
    module = torch.nn.ModuleDict({"ranges": torch.nn.ModuleList(unique(ranges)), "other": torch.nn.Linear(2, 2)})
    getattr(module, cast)()
    module.to(torch.device("cpu")).to(torch.float16).float()
    assert module["other"].weight.dtype == torch.float32
    for name, r in ranges.items():
        assert r.start.dtype == r.log_ratio.dtype == torch.float32
        assert r.qparams() == before[name]
    assert isinstance(next(iter(module["ranges"].parameters())), torch.nn.Parameter)


def test_moving_to_another_device_moves_ranges(plan: Plan) -> None:
    found = copy.deepcopy(next(iter(learned_ranges(plan).values()))).to("meta")
    assert {t.device.type for t in (*found.buffers(), *found.parameters())} == {"meta"}


def test_copies_are_equal_and_independent(plan: Plan) -> None:
    ranges = learned_ranges(plan)
    disturb(ranges)
    module = torch.nn.ModuleList(unique(ranges))
    other = copy.deepcopy(module)
    before = [r.qparams() for r in other]
    assert before == [r.qparams() for r in module]
    disturb(ranges, seed=1)
    assert before == [r.qparams() for r in other] != [r.qparams() for r in module]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_state_dict_brings_ranges_back_bit_for_bit(scheme: str) -> None:
    plan = planned(scheme=scheme)[1]
    ranges = learned_ranges(plan, offset=True)
    disturb(ranges)
    fresh = learned_ranges(plan, offset=True)
    torch.nn.ModuleList(unique(fresh)).load_state_dict(torch.nn.ModuleList(unique(ranges)).state_dict())
    assert [r.qparams() for r in fresh.values()] == [r.qparams() for r in ranges.values()]


def test_the_learned_plan_has_the_new_ranges_and_says_so() -> None:
    plan = planned(scheme="litert")[1]
    ranges = learned_ranges(plan, offset=True)
    disturb(ranges)
    learned = learned_plan(plan, ranges)
    for before, after in zip(plan.points, learned.points, strict=True):
        if ranges[before.name].trainable:
            assert after.algorithm == "learned" and after.params == ranges[before.name].qparams()
            assert after.params != before.params
        else:
            assert after == before
        assert replace(after, params=None, algorithm="") == replace(before, params=None, algorithm="")
    assert Plan.from_json(learned.to_json()) == learned


def test_zero_points_survive_a_moving_average() -> None:
    """An average of equal values as v * d + v * (1 - d) is not always the value; a zero_point must not truncate."""
    spec = QuantSpec()
    for zero in range(-128, 128):
        found = LSQQuantizer(("x",), spec, QParams(np.float32(0.1), np.int32(zero)))  # type: ignore[arg-type]
        for value in found.state_dict().values():
            if value.dtype.is_floating_point:
                for d in (0.1, 0.3, 0.7, 0.999):
                    value.copy_(value * d + value * (1 - d))
        assert int(found.qparams().zero_point) == zero and float(found.zero_point()) == zero


def affine(zero: int = 100, step: float = 0.1) -> LSQQuantizer:
    return LSQQuantizer(("x",), QuantSpec(), QParams(np.float32(step), np.int32(zero)), offset=True)  # type: ignore[arg-type]


def test_a_learned_offset_stays_on_the_grid() -> None:
    found = affine()
    assert found.log_low is not None
    with torch.no_grad():
        found.log_low.fill_(10)
        assert int(found.qparams().zero_point) == 127
        found.log_low.fill_(-10)
        assert int(found.qparams().zero_point) == -128


@pytest.mark.parametrize("zero", [-128, -100, 0, 57, 127])
def test_ends_move_apart(zero: int) -> None:
    """Each end follows its own factor, to half a step; before the first step the range is the calibrated one."""
    found = affine(zero)
    assert found.log_low is not None and int(found.qparams().zero_point) == zero
    assert found.qparams().scale == np.float32(0.1)
    low, high = (-128 - zero) * 0.1, (127 - zero) * 0.1
    with torch.no_grad():
        found.log_low.fill_(math.log(0.5))
        found.log_ratio.fill_(math.log(1.25))
    params = found.qparams()
    ends = [(q - int(params.zero_point)) * float(params.scale) for q in (-128, 127)]
    assert ends == pytest.approx([0.5 * low, 1.25 * high], abs=0.51 * float(params.scale))


def test_a_clipped_value_pulls_its_own_end_only() -> None:
    """d(end) / d(log of its factor) is the end itself; LSQ+'s gradients of scale and offset together give that."""
    found = affine(0)
    low, high = -128 * 0.1, 127 * 0.1
    factor = 1 / np.sqrt(3 * 127)
    found(torch.full((1, 3), -100.0)).sum().backward()
    assert found.log_low is not None and found.log_low.grad is not None
    assert float(found.log_low.grad) == pytest.approx(3 * low * factor, rel=1e-5)
    assert float(found.log_ratio.grad) == pytest.approx(0, abs=1e-4)
    found.zero_grad()
    found(torch.full((1, 3), 100.0)).sum().backward()
    assert float(found.log_low.grad) == pytest.approx(0, abs=1e-4)
    assert float(found.log_ratio.grad) == pytest.approx(3 * high * factor, rel=1e-5)


def test_a_step_size_s_gradient_shrinks_with_the_number_of_values() -> None:
    found = LSQQuantizer(("x",), QuantSpec(symmetric=True), QParams(np.float32(0.5), np.int32(0)))  # type: ignore[arg-type]
    gradients = []
    for count in (10, 1000):
        found.log_ratio.grad = None
        found(torch.full((1, count), 0.7)).sum().backward()
        gradients.append(float(found.log_ratio.grad) / count)
    wanted = [(1 - 1.4) * 0.5 / np.sqrt(c * 127) for c in (10, 1000)]  # (q - x / s) * s * g
    assert np.allclose(gradients, wanted, rtol=1e-5)


def test_plans_that_cannot_be_learned_are_refused(plan: Plan) -> None:
    bare = replace(plan, points=(replace(plan.points[0], params=None), *plan.points[1:]))
    with pytest.raises(PlanError, match="have no range"):
        learned_ranges(bare)
    tied = next(p for p in plan.points if p.tie)
    other = plan.with_params({tied.name: QParams(np.float32(9.0), np.int32(0))}, "mse")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="tied"):
        learned_ranges(other)
    weight = plan.weights[0]
    affine = replace(weight, spec=replace(weight.spec, symmetric=False))
    with pytest.raises(PlanError, match="affine"):
        learned_ranges(replace(plan, points=tuple(affine if p is weight else p for p in plan.points)))


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_range_finds_the_best_one_by_its_own_error(symmetric: bool) -> None:
    """Starting from the extremes of a tensor with outliers, down to what a search over all ends finds."""
    values = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    values[0, 0, 0, 0], values[0, 1, 3, 3] = -40.0, 30.0
    spec = QuantSpec(bits=4, symmetric=symmetric)
    wide = _params(-40.0, 30.0, spec)
    found = LSQQuantizer(("x",), spec, wide, offset=True)
    step = torch.optim.Adam(found.parameters(), lr=0.02)
    for _ in range(400):
        step.zero_grad()
        found.local_error(values).backward()
        step.step()
    ends = np.linspace(0.5, 40, 80)
    lows = [None] if symmetric else list(-ends)
    best = min(_error(values, _params(-h if low is None else low, h, spec), spec) for low in lows for h in ends)
    learned = _error(values, found.qparams(), spec)
    assert learned < best * 1.05 < _error(values, wide, spec)


def test_every_channel_of_a_weight_finds_its_own_best_range() -> None:
    weight = (
        torch.randn(3, 64, 3, 3, generator=torch.Generator().manual_seed(1))
        * torch.tensor([1.0, 0.1, 5.0])[:, None, None, None]
    )
    weight[0, 0, 0, 0] = 12.0  # an outlier
    spec = QuantSpec(bits=4, symmetric=True, axis=0, narrow_range=True)
    wide = QParams((weight.abs().amax((1, 2, 3)) / spec.qmax).numpy(), np.zeros(3, np.int32))
    found = LSQQuantizer(("w",), spec, wide)
    step = torch.optim.Adam(found.parameters(), lr=0.02)
    for _ in range(300):
        step.zero_grad()
        found.local_error(weight).backward()
        step.step()
    plain = QuantSpec(bits=4, symmetric=True, narrow_range=True)
    for channel, scale in zip(weight, found.qparams().scale, strict=True):
        tried = [
            QParams(np.float32(s * float(channel.abs().max()) / spec.qmax), np.int32(0))
            for s in np.linspace(0.1, 1, 91)
        ]
        best = min(_error(channel, t, plain) for t in tried)
        assert _error(channel, QParams(np.float32(scale), np.int32(0)), plain) < best * 1.05


def test_an_error_is_judged_behind_what_follows() -> None:
    """What a SiLU flattens need not be represented."""
    values = torch.linspace(-40, 6, 4096).reshape(1, 1, 64, 64)
    spec = QuantSpec(bits=8, symmetric=False)
    lows = {}
    for then in (torch.nn.Identity(), torch.nn.functional.silu):
        found = LSQQuantizer(("x",), spec, _params(-40.0, 6.0, spec), offset=True)
        step = torch.optim.Adam(found.parameters(), lr=0.02)
        for _ in range(300):
            step.zero_grad()
            found.local_error(values, then, then(values)).backward()
            step.step()
        lows[then] = found.qparams().range(spec)[0]
    plain, gated = lows.values()
    assert plain < -35 and -15 < gated < -3


def _params(low: float, high: float, spec: QuantSpec) -> QParams:
    if spec.symmetric:
        return QParams(np.float32(max(-low, high) / spec.qmax), np.int32(0))
    scale = (high - low) / (spec.qmax - spec.qmin)
    return QParams(np.float32(scale), np.int32(round(spec.qmin - low / scale)))


def _error(values: torch.Tensor, params: QParams, spec: QuantSpec) -> float:
    scale, zero = float(params.scale), int(params.zero_point)
    q = (values / scale).round().add(zero).clamp(spec.qmin, spec.qmax)
    return float((((q - zero) * scale - values) ** 2).mean())


def test_scales_of_safe_weights_never_let_a_pair_overflow() -> None:
    """However far a scale has shrunk and weights have grown since calibration."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 16, 3, 3, generator=generator)
    spec = QuantSpec(symmetric=True, narrow_range=True, axis=0, safe_pairs=True)
    learned = LSQQuantizer(("w",), spec, compute_weight_qparams(weight.numpy(), spec, Algorithm.MSE))
    assert learned.qparams() == compute_weight_qparams(weight.numpy(), spec, Algorithm.MSE)
    with torch.no_grad():
        learned.log_ratio.sub_(0.5)
        weight = weight * 1.3
    learned.keep_safe(weight)
    params = learned.qparams()
    steps = torch.from_numpy(params.scale).reshape(-1, 1, 1, 1)
    assert unsafe_channels(torch.clamp(torch.round(weight / steps), -127, 127), 0) == 0
    torch.testing.assert_close(torch.round(learned(weight) / steps) * steps, learned(weight))
    free = LSQQuantizer(("w",), replace(spec, safe_pairs=False), params)
    free.keep_safe(weight)
    assert not free.least.any()
