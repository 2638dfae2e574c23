"""Latency as a target: the search on made-up times, and one real measurement."""

from __future__ import annotations

from typing import Any

import pytest
from pruning_cases import SIZE
from tiny_models import tiny_yolo

from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import HostModel
from yoloquant.errors import PruneError, TargetError
from yoloquant.pruning import latency
from yoloquant.pruning.planner import compute_importance, make_plan
from yoloquant.pruning.prune_options import PruneOptions, parse


class Weighed:
    """Stands for a stopwatch: milliseconds that grow with the parameters."""

    def __init__(self, source: HostModel, imgsz: tuple[int, int], runtime: str) -> None:
        self.full = self._time(source.module)
        self.measured = 0
        self.closed = False
        made.append(self)

    def __call__(self, module: Any) -> tuple[float, float]:
        self.measured += 1
        return self.full, self._time(module)

    def layers(self, module: Any) -> dict[str, float]:
        if not profiled:
            return {}
        return {n: p.numel() / 1e5 for n, p in module.named_parameters() if p.dim() == 4}

    def told(self, plan: Any, module: Any) -> Any:
        return plan

    def _time(self, module: Any) -> float:
        return 1.0 + sum(p.numel() for p in module.parameters()) / 1e5

    def close(self) -> None:
        self.closed = True


made: list[Weighed] = []
profiled: list[bool] = []


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> HostModel:
    profiled.clear()
    monkeypatch.setattr(latency, "Stopwatch", Weighed)
    return load_model(tiny_yolo("yolov8"))


def plan(source: HostModel, options: PruneOptions) -> Any:
    analysis = compute_importance(source.module, options, SIZE)
    return latency.plan_for_latency(analysis, source, options, SIZE, round_to=2)


@pytest.mark.parametrize("told", [False, True], ids=["whole", "by layer"])
def test_the_mildest_plan_that_is_fast_enough_is_found_in_few_measurements(source: HostModel, told: bool) -> None:
    profiled.extend([True] * told)
    found = plan(source, parse({"amount": 0.4, "target": "latency", "round_to": 2}))
    before, after = found.latency["openvino"]
    assert 0.4 <= 1 - after / before < 0.4 + latency.TOLERANCE + 0.02
    assert made[-1].closed and made[-1].measured <= 12


def test_out_of_reach_says_the_most_that_can_go(source: HostModel) -> None:
    with pytest.raises(PruneError, match="the most that"):
        plan(source, parse({"amount": 0.95, "target": "latency", "round_to": 2}))
    assert made[-1].closed


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_plan_is_measured_beside_the_unpruned_model_layer_by_layer(runtime: str) -> None:
    source = load_model(tiny_yolo("yolov8"))
    options = parse({"amount": 0.5, "round_to": 2})
    planned = make_plan(compute_importance(source.module, options, SIZE), options, SIZE)
    told = latency.with_latency(planned, source, runtime)
    before, after = told.latency[runtime]
    assert before > 0 and after > 0
    assert all(layer.ms is not None and min(layer.ms) >= 0 for layer in told.layers)
    assert "  ms" in told.table()[0] and "  ms" not in planned.table()[0]


def test_a_runtime_that_is_elsewhere_is_refused() -> None:
    source = load_model(tiny_yolo("yolov8"))
    options = parse({"amount": 0.5, "round_to": 2})
    planned = make_plan(compute_importance(source.module, options, SIZE), options, SIZE)
    with pytest.raises(TargetError, match="cannot be measured"):
        latency.with_latency(planned, source, "tensorrt")
