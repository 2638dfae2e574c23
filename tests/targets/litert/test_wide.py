"""``litert:w8a16``: ranges from the 8-bit plan, one file on a tiny detector, and who refuses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from yoloquant import targets
from yoloquant.errors import PlanError, UsageError
from yoloquant.quantization.plan import Plan, Point, PointKind, Role
from yoloquant.quantization.qparams import UNIT_QPARAMS, QParams, QuantSpec
from yoloquant.targets.litert.wide import coarse, fine_scale, is_wide, widen

if TYPE_CHECKING:
    from conftest import Tiny

    from yoloquant.types import ExportedModel


def point(name: str, scale: Any, zero_point: Any, algorithm: str = "mse", **changes: Any) -> Point:
    params = QParams(np.float32(scale), np.int32(zero_point))
    return Point(
        name, PointKind.ACTIVATION, Role.ACTIVATION, QuantSpec(), params=params, algorithm=algorithm, **changes
    )


WEIGHT = Point(
    "w", PointKind.WEIGHT, Role.WEIGHT, QuantSpec(symmetric=True, narrow_range=True), params=QParams(0.01, 0)
)
PLAN = Plan(
    "litert",
    (64, 64),
    (
        WEIGHT,
        point("calibrated", 0.1, -100),
        point("high", 0.1, -100, "learned"),
        point("low", 0.1, 90, "learned"),
        replace(point("unit", 1, 0, "fixed", fixed=True), params=UNIT_QPARAMS),
    ),
)


def scales(plan: Plan) -> dict[str, float]:
    assert all(p.params is not None and (p.params.zero_point == 0).all() for p in plan.points)
    return {p.name: float(p.params.scale) for p in plan.points if p.params is not None}


def test_ranges_are_the_plans_around_zero() -> None:
    wide = widen(PLAN)
    assert is_wide(wide) and not is_wide(PLAN) and wide.weights == PLAN.weights
    assert {(p.spec.bits, p.spec.qmin, p.spec.qmax) for p in wide.activations} == {(16, -32768, 32767)}
    found = scales(wide)
    assert found["calibrated"] == np.float32(0.1) / np.float32(16)  # a power of two, as qnn:w8a16 has it
    # a learned range keeps the end that is further away: 227 and 218 steps of 0.1
    assert found["high"] == pytest.approx(22.7 / 32767) and found["low"] == pytest.approx(21.8 / 32767)
    assert found["unit"] == 1 / 32768


def test_the_converters_grid_becomes_the_plans_again_bit_by_bit() -> None:
    rng = np.random.default_rng(0)
    given = widen(replace(PLAN, points=tuple(point(str(i), s, 3) for i, s in enumerate(rng.uniform(1e-6, 50, 500)))))
    for name, stand_in in coarse(given).by_name.items():
        params, wanted = stand_in.params, given.by_name[name].params
        assert params is not None and wanted is not None
        assert stand_in.spec.bits == 8 and fine_scale(params.scale, params.zero_point) == wanted.scale
    unit = coarse(widen(PLAN)).by_name["unit"].params
    assert unit == UNIT_QPARAMS and fine_scale(unit.scale, unit.zero_point) == np.float32(1 / 32768)


@pytest.mark.parametrize("name", ["edgetpu:w8a16", "ethosu:w8a16"])
def test_accelerators_have_no_such_file(name: str) -> None:
    with pytest.raises(UsageError, match="w8a16"):
        targets.get(name)


def test_single_layers_of_16_bits_are_refused_by_name() -> None:
    with pytest.raises(PlanError, match=r"no single layer in w8a16, .* for model\.1 \(1 in all\)"):
        targets.get("litert:w8a16").check_layers(replace(PLAN, wide_layers=("model.1",)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "_end2end"])
def test_a_detector_keeps_more_than_with_8_bits(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The one has an attention of one head, a product of computed tensors without a batch; the other has two."""
    import torch

    from yoloquant.quantization.simulate import simulate
    from yoloquant.targets.litert.flatbuffer import Flatbuffer

    tiny: Tiny = request.getfixturevalue(f"tiny{kind}")
    narrow: ExportedModel = request.getfixturevalue(f"exported{kind}")["litert"]
    target = targets.get("litert:w8a16")
    exported = target.export(tiny.artifact(), tmp_path, "tiny")
    assert (exported.name, exported.path.name, exported.drop_in) == ("litert:w8a16", "tiny-litert-w8a16.tflite", True)
    plan, found = widen(tiny.plan), target.read_scales(exported)
    assert set(found) == set(plan.by_name)
    for wanted in plan.points:
        assert wanted.params is not None and QParams(*found[wanted.name]) == wanted.params, wanted.name
    file = Flatbuffer.read(exported.path)
    integers = [op for op in file.ops if not file.is_float(op)]
    # a selection in the graph compares and counts, too
    selection = {"BOOL", "INT32"} if kind else set()
    assert {file.tensors[i].dtype for op in integers for i in op.outputs} == {"INT16", "FLOAT32"} | selection
    assert all(f.tail for f in file.float_ops())
    errors = []
    image = tiny.image(30)
    with torch.inference_mode():
        exact = tiny.graph.module(torch.from_numpy(image)).numpy()
        wanted_outputs = simulate(tiny.graph, plan)(torch.from_numpy(image)).numpy()
    outputs = []
    for each in (exported, narrow):
        runner = target.load(each, threads=1)
        try:
            outputs.append(runner(image)[0].copy())
        finally:
            runner.close()
    if not kind:  # an end-to-end head gives rows in the order of scores, which hardly differ here
        errors = [np.abs(output - exact).mean() for output in outputs]
        assert 0 < errors[0] < errors[1] / 2
        assert np.abs(outputs[0] - wanted_outputs).mean() <= 0.5 * np.abs(wanted_outputs - exact).mean()
    assert outputs[0].shape == exact.shape
