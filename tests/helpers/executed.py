"""What a runtime holds and executes of an artifact."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from yoloquant.quantization.artifact import Artifact
from yoloquant.targets.base import Target
from yoloquant.types import ExportedModel


def assert_ranges(target: Target, artifact: Artifact, found: ExportedModel) -> None:
    """Every scale and zero_point of the plan reads back bit-equal, and there are no others."""
    ranges = target.read_scales(found)
    plan = artifact.plan_for(target.scheme)
    assert set(ranges) == set(plan.by_name)
    for point in plan.points:
        assert point.params is not None
        assert np.array_equal(ranges[point.name][0], point.params.scale), point.name
        assert np.array_equal(ranges[point.name][1], point.params.zero_point), point.name


def onnxruntime_operations(path: Path, folder: Path) -> Counter[str]:
    """How many operations of each type ONNX Runtime executes."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def openvino_float_convolutions(artifact: Artifact, found: ExportedModel) -> list[str]:
    """Planned convolutions that OpenVINO executes in float."""
    from yoloquant.targets.openvino import SCHEME, OpenVinoTarget

    planned = {p.name.removesuffix(":weight") for p in artifact.plan_for(SCHEME).weights}
    runner = OpenVinoTarget().load(found, threads=1)
    executed = [(name, kind) for layer, name, kind in runner.executed() if layer == "Convolution"]
    precisions = Counter(kind for _, kind in executed)
    assert precisions["u8"] + precisions["i8"] > 0
    names = [name.removesuffix("/WithoutBiases") for name, kind in executed if kind not in {"u8", "i8"}]
    return [name for name in names if name in planned]
