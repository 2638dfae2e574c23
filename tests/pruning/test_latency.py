"""Latency as a target: the search on made-up times, and one real measurement."""

from __future__ import annotations

from typing import Any

import pytest
from pruning_cases import SIZE
from tiny_models import tiny_yolo

from yoloquant import host
from yoloquant.errors import PruneError, TargetError
from yoloquant.pruning import latency
from yoloquant.pruning.make import weigh
from yoloquant.pruning.options import PruneOptions, parse


class Weighed:
    """Stands for a stopwatch: milliseconds that grow with the parameters."""

    def __init__(self, source: host.HostModel, imgsz: tuple[int, int], runtime: str) -> None:
        self.full = self._time(source.module)
        self.measured = 0
        self.closed = False
        made.append(self)

    def __call__(self, module: Any) -> tuple[float, float]:
        self.measured += 1
        return self.full, self._time(module)

    def _time(self, module: Any) -> float:
        return 1.0 + sum(p.numel() for p in module.parameters()) / 1e5

    def close(self) -> None:
        self.closed = True


made: list[Weighed] = []


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> host.HostModel:
    monkeypatch.setattr(latency, "Stopwatch", Weighed)
    return host.load_model(tiny_yolo("yolov8"))


def plan(source: host.HostModel, options: PruneOptions) -> Any:
    analysis = weigh(source.module, options, SIZE)
    return latency.plan_for_latency(analysis, source, options, SIZE, round_to=2)


def test_the_mildest_plan_that_is_fast_enough_is_found_in_few_measurements(source: host.HostModel) -> None:
    found = plan(source, parse({"amount": 0.4, "target": "latency", "round_to": 2}))
    before, after = found.latency["openvino"]
    assert 0.4 <= 1 - after / before < 0.4 + latency.TOLERANCE + 0.02
    assert made[-1].closed and made[-1].measured <= 12


def test_out_of_reach_says_the_most_that_can_go(source: host.HostModel) -> None:
    with pytest.raises(PruneError, match="the most that"):
        plan(source, parse({"amount": 0.95, "target": "latency", "round_to": 2}))
    assert made[-1].closed


@pytest.mark.slow
def test_a_plan_is_measured_beside_the_unpruned_model() -> None:
    source = host.load_model(tiny_yolo("yolov8"))
    options = parse({"amount": 0.5, "round_to": 2})
    from yoloquant.pruning.make import make_plan

    planned = make_plan(weigh(source.module, options, SIZE), options, SIZE)
    before, after = latency.with_latency(planned, source, "onnxruntime").latency["onnxruntime"]
    assert before > 0 and after > 0
    with pytest.raises(TargetError, match="cannot be measured"):
        latency.with_latency(planned, source, "tensorrt")
