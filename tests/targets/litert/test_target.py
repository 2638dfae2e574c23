"""The whole way through the converter, on a tiny detector: exactness, integer body, drop-in and raw files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from yoloquant.errors import ArtifactError, PlanError, TargetError
from yoloquant.types import ExportedModel, HeadLayout, Task

if TYPE_CHECKING:
    from conftest import Tiny

pytestmark = pytest.mark.slow


def _target(name: str) -> Any:
    from yoloquant.targets.edgetpu.target import EdgeTPUTarget
    from yoloquant.targets.litert.target import LiteRTTarget

    return {"litert": LiteRTTarget, "edgetpu": EdgeTPUTarget}[name]()


@pytest.mark.parametrize("name", ["litert", "edgetpu"])
def test_scales_read_back_are_exactly_the_plans(name: str, exported: dict[str, ExportedModel], tiny: Tiny) -> None:
    scales = _target(name).read_scales(exported[name])
    assert set(scales) == set(tiny.plan.by_name)
    for point in tiny.plan.points:
        assert point.params is not None
        scale, zero_point = scales[point.name]
        assert scale.dtype == np.float32
        assert scale.tobytes() == point.params.scale.tobytes(), point.name
        np.testing.assert_array_equal(zero_point, point.params.zero_point, err_msg=point.name)


def test_points_lie_in_different_tensors(exported: dict[str, ExportedModel], tiny: Tiny) -> None:
    from yoloquant.targets.litert.metadata import read

    for model in exported.values():
        tensors = read(model.path)[0]["tensors"]
        assert len(set(tensors.values())) == len(tensors) == len(tiny.plan.points)


def test_body_is_integer_and_needs_no_requantize(exported: dict[str, ExportedModel]) -> None:
    from yoloquant.targets.litert.flatbuffer import Flatbuffer, float_ops

    floats = float_ops(exported["litert"].path)
    assert floats
    assert all(f.tail for f in floats)
    assert float_ops(exported["edgetpu"].path) == []
    assert [m.metadata["requantize"] for m in exported.values()] == [0, 0]
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(exported["edgetpu"].metadata["operators"])
    file = Flatbuffer.read(exported["edgetpu"].path)
    moved = {i for op in file.ops if op.kind == "TRANSPOSE" for i in (*op.inputs, *op.outputs)}
    assert moved  # inside attention
    assert not moved & {*file.inputs, *file.outputs}


def test_raw_and_decoded_files_agree(exported: dict[str, ExportedModel], tiny: Tiny) -> None:
    runners = {name: _target(name).load(e, threads=1) for name, e in exported.items()}
    for seed in range(3):
        decoded, raw = (runners[n](tiny.image(seed))[0] for n in ("litert", "edgetpu"))
        np.testing.assert_allclose(raw, decoded, rtol=1e-4, atol=1e-2)
    assert len(runners["edgetpu"].infer(tiny.image(0))) == 2 * len(tiny.graph.info.strides)


def test_end_to_end_head(exported_end2end: dict[str, ExportedModel], tiny_end2end: Tiny) -> None:
    """Also the head biases of a fresh model, which are constant and which the converter alone gets wrong."""
    assert exported_end2end["litert"].layout is HeadLayout.END2END
    assert exported_end2end["edgetpu"].layout is HeadLayout.RAW
    decoded, raw = (_target(n).load(e, threads=1)(tiny_end2end.image(1))[0] for n, e in exported_end2end.items())
    assert decoded.shape == raw.shape == (1, tiny_end2end.graph.info.max_det, 6)
    np.testing.assert_allclose(raw[0, :, 4], decoded[0, :, 4], atol=1e-5)


def test_attention_is_found_in_both_forms(
    exported: dict[str, ExportedModel], exported_end2end: dict[str, ExportedModel], tiny: Tiny
) -> None:
    """With one head the converter drops the batch and writes fully connected operators without constant weights."""
    product = "FULLY_CONNECTED of computed tensors"
    for model in exported.values():
        assert model.metadata["operators"][product] == 2
        assert "BATCH_MATMUL" not in model.metadata["operators"]
    for model in exported_end2end.values():
        assert model.metadata["operators"]["BATCH_MATMUL"] == 2
        assert product not in model.metadata["operators"]
    assert any(f"does not run 2 {product}" in note for note in exported["edgetpu"].notes)
    assert any("does not run 2 BATCH_MATMUL" in note for note in exported_end2end["edgetpu"].notes)
    assert sum(":matmul:" in p.name for p in tiny.plan.points) == 2


def test_ultralytics_loads_the_drop_in(exported: dict[str, ExportedModel], tiny: Tiny) -> None:
    from ultralytics import YOLO

    model = YOLO(exported["litert"].path, task="detect")
    pixels = (tiny.image(5)[0].transpose(1, 2, 0)[..., ::-1] * 255).round().astype(np.uint8)
    result = model.predict(pixels, imgsz=tiny.graph.info.imgsz, conf=0.01, max_det=50, device="cpu", verbose=False)[0]
    assert result.names == {0: "a", 1: "b", 2: "c"}
    assert len(result.boxes)
    ours = _target("litert").load(exported["litert"], threads=1)(tiny.image(5))[0][0]
    best = result.boxes[0]
    score = ours[4 + int(best.cls)]
    match = int(np.argmin(np.abs(score - float(best.conf))))
    assert abs(score[match] - float(best.conf)) < 1e-5


def test_metadata_of_the_drop_in(exported: dict[str, ExportedModel], tiny: Tiny) -> None:
    from yoloquant.quantization.plan import Plan
    from yoloquant.targets.litert.metadata import read

    own, _ = read(exported["litert"].path)
    assert Plan.from_dict(own["plan"]).digest() == tiny.plan.digest()
    assert own["model_sha256"] == tiny.host.sha256
    assert exported["litert"].drop_in
    assert not exported["edgetpu"].drop_in


def test_float_export_is_the_float_model_and_no_integer_body(tiny: Tiny, tmp_path: Path) -> None:
    import torch

    from yoloquant.targets.litert.build import check_integer_body
    from yoloquant.targets.litert.flatbuffer import Flatbuffer

    model = _target("litert").export_float(tiny.artifact(), tmp_path, "tiny")
    assert model.precision == "fp32"
    image = tiny.image(7)
    with torch.inference_mode():
        expected = tiny.graph.module(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(_target("litert").load(model, threads=1)(image)[0], expected, rtol=1e-3, atol=1e-2)
    with pytest.raises(TargetError, match=r"compute in float: .*CONV_2D"):
        check_integer_body(Flatbuffer.read(model.path), raw=False)


def test_a_weight_that_is_not_in_the_file_is_noticed(exported: dict[str, ExportedModel], tiny: Tiny) -> None:
    """The walk recognises weights by their integers, so another model's file must not pass."""
    from yoloquant.graph.head_levels import head_levels
    from yoloquant.quantization.insert import insert
    from yoloquant.targets.litert.convert import cut_body
    from yoloquant.targets.litert.flatbuffer import Flatbuffer
    from yoloquant.targets.litert.mapping import locate
    from yoloquant.targets.litert.qdq import carry, make_pair

    heads = head_levels(tiny.graph)
    module = insert(tiny.graph, tiny.plan, make_pair)
    carry(module, tiny.graph, tiny.plan)
    body = cut_body(module, [tiny.graph.fx_name(name) for name in heads])
    file = Flatbuffer.read(exported["litert"].path)
    locate(body, tiny.graph, file)
    weight = body.get_parameter(tiny.graph.ops[heads[0]].weight)
    weight.data[0, 0] += weight.data.abs().max()
    with pytest.raises(TargetError, match="no counterpart"):
        locate(body, tiny.graph, file)


def test_a_changed_file_is_refused(exported: dict[str, ExportedModel], tmp_path: Path) -> None:
    content = bytearray(exported["litert"].path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "changed.tflite"
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError):
        _target("litert").read_scales(replace(exported["litert"], path=path))


def test_a_plan_with_gaps_is_refused(tiny: Tiny) -> None:
    from yoloquant.targets.litert.build import Variant, build

    moved = next(op for op in tiny.graph.body() if "max_pool2d" in op.name)
    points = tuple(p for p in tiny.plan.points if p.name != tiny.graph.root(moved.name))
    with pytest.raises(TargetError, match="which the plan does not quantize"):
        build(tiny.graph, replace(tiny.plan, points=points), Variant())


def test_a_head_of_another_task_is_refused_before_any_work(tiny: Tiny) -> None:
    artifact = tiny.artifact()
    info, tiny.graph.info = tiny.graph.info, replace(tiny.graph.info, task=Task.SEGMENT)
    try:
        with pytest.raises(PlanError, match="the head's mask convolutions have maps"):
            _target("litert").check(artifact)
    finally:
        tiny.graph.info = info


def test_a_head_that_does_not_fit_its_strides_is_refused(tiny: Tiny) -> None:
    from yoloquant.graph.head_levels import head_levels

    info, tiny.graph.info = tiny.graph.info, replace(tiny.graph.info, strides=(4, 8, 16))
    try:
        with pytest.raises(PlanError, match="own heads only"):
            head_levels(tiny.graph)
    finally:
        tiny.graph.info = info


def test_variants_that_contradict_themselves_are_refused() -> None:
    from yoloquant.targets.litert.build import Variant

    for raw, input_type in ((True, "float32"), (False, "int8")):
        with pytest.raises(TargetError, match="does not go with"):
            Variant(raw, input_type)
