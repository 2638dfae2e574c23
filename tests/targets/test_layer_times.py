"""Profiles of runtimes: every weighted layer has a time, and nothing of a run is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_export_artifact, tiny_yolo

from yoloquant import targets
from yoloquant.bridge.checkpoint import load_model
from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.artifact import Artifact
from yoloquant.targets.layer_times import WARMUP, attributed, owners

SIZE = 64, 64


@pytest.mark.slow
@pytest.mark.parametrize("family", ["yolov8", "yolo11"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_convolution_has_a_time(family: str, runtime: str, tmp_path: Path) -> None:
    source = load_model(tiny_yolo(family))
    artifact = Artifact(TracedModel.of(replace(source, state={}), SIZE))
    target = targets.get(runtime)
    exported = target.export_float(artifact, tmp_path, "model")
    times = target.layer_times(exported, np.zeros((1, 3, *SIZE), np.float32), 1)
    weights = {n for n, p in artifact.graph.module.named_parameters() if p.dim() == 4}
    assert {w for w in weights if "dfl" not in w} <= times.keys()
    assert all(t >= 0 for t in times.values()) and sum(times.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_so_has_every_quantized_one_and_nothing_is_lost(runtime: str, tmp_path: Path) -> None:
    target = targets.get(runtime)
    # both schemes: one calibration for the two cases
    schemes = [targets.get(name).scheme for name in ("onnxruntime", "openvino")]
    artifact = tiny_export_artifact("yolo11", schemes=schemes)
    times = target.layer_times(target.export(artifact, tmp_path, "model"), np.zeros((1, 3, *SIZE), np.float32), 1)
    weights = {n for n, p in artifact.graph.module.named_parameters() if p.dim() == 4}
    # by the same names as of the float model, so that the two can be held against each other
    assert {w for w in weights if "dfl" not in w} <= times.keys() <= weights


def test_conversions_count_with_the_layer_whose_result_they_work_on() -> None:
    operations = [
        ("quantize", ("quantize",), ["image"], ["q"]),
        ("a", ("a",), ["q"], ["x"]),
        ("b", ("b",), ["q"], ["y"]),
        # executed behind b, and still a's
        ("dequantize", ("dequantize",), ["x"], ["x2"]),
        ("act", ("act",), ["x2"], ["x3"]),
        ("add", ("add",), ["y", "x3"], ["z"]),
        ("renamed", ("renamed", "c"), ["z"], ["out"]),
    ]
    weights = {"a": "a.weight", "b": "b.weight", "c": "c.weight"}
    assert owners(operations, weights) == {
        "a": "a.weight", "b": "b.weight", "dequantize": "a.weight", "act": "a.weight", "add": "b.weight",
        "renamed": "c.weight",
    }  # fmt: skip


@pytest.mark.slow
def test_a_runtime_without_a_profiler_says_nothing(tmp_path: Path) -> None:
    source = load_model(tiny_yolo("yolov8"))
    artifact = Artifact(TracedModel.of(replace(source, state={}), SIZE))
    target = targets.get("tensorrt")
    exported = target.export_float(artifact, tmp_path, "model")
    assert target.layer_times(exported, np.zeros((1, 3, *SIZE), np.float32)) == {}


operations = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.floats(0, 10)), min_size=1, max_size=12)


@given(operations)
def test_every_operation_counts_once_if_there_is_a_layer(run: list[tuple[str | None, float]]) -> None:
    found = attributed([run] * (WARMUP + 1))
    if any(name for name, _ in run):
        assert sum(found.values()) == pytest.approx(sum(ms for _, ms in run))
    else:
        assert not found
