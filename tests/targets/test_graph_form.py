"""What an exported graph may do besides the network: who can, what is refused, and what its description says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from yoloquant import targets
from yoloquant.cli.parser import read
from yoloquant.errors import UsageError
from yoloquant.recipe import make_recipe
from yoloquant.targets.graph_form import PLAIN, GraphForm, form_of
from yoloquant.targets.onnx.graph_options import GraphOptions
from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task

INFO = ModelInfo(Task.DETECT, ("a",), (64, 64), max_det=50)


def test_nothing_is_asked_for_unless_it_is() -> None:
    assert GraphOptions().form == PLAIN and GraphOptions().given == {} and PLAIN.to_metadata() == {}
    assert PLAIN.described(INFO) is INFO and PLAIN.notes(INFO) == () and PLAIN.tag == ""
    (target,) = targets.with_graph(targets.resolve("litert"), PLAIN)
    assert target.graph == PLAIN


def test_an_export_with_nms_is_described_as_one_that_selects() -> None:
    form = GraphOptions(nms=True, iou=0.5, max_det=20).form
    assert form == GraphForm(nms=True, conf=0.001, iou=0.5, multi_label=True, max_det=20)
    described = form.described(INFO)
    assert described.layout is HeadLayout.END2END and described.max_det == 20
    assert GraphForm(nms=True).described(INFO).max_det == 50
    (note,) = form.notes(INFO)
    assert "scores above 0.001" in note and "20 rows" in note
    exported = ExportedModel("onnxruntime", Path("m.onnx"), described, described.layout, metadata=form.to_metadata())
    assert form_of(exported) == form and form_of(replace(exported, metadata={})) == PLAIN


def test_targets_without_it_are_named_with_those_that_have_it() -> None:
    able = targets.with_graph(targets.resolve("onnxruntime,openvino:fp16,tensorrt"), GraphForm(nms=True))
    assert [t.graph.nms for t in able] == [True, True, True]
    with pytest.raises(UsageError, match=r"nms= .* litert:fp16, edgetpu .* onnxruntime, openvino, tensorrt"):
        targets.with_graph(targets.resolve("onnxruntime,litert:fp16,edgetpu"), GraphForm(nms=True))


@pytest.mark.parametrize(
    ("info", "told"),
    [
        (replace(INFO, end2end=True), "selects its detections itself"),
        (replace(INFO, task=Task.OBB), "upright boxes, and this model's task is obb"),
        (replace(INFO, task=Task.CLASSIFY), "upright boxes, and this model's task is classify"),
    ],
)
def test_models_without_upright_boxes_are_refused(info: ModelInfo, told: str) -> None:
    PLAIN.check(info, "onnxruntime")
    GraphForm(nms=True).check(replace(INFO, task=Task.POSE), "onnxruntime")
    with pytest.raises(UsageError, match=told):
        GraphForm(nms=True).check(info, "onnxruntime")


def test_several_images_are_said_in_name_notes_and_metadata() -> None:
    form = GraphOptions(batch=8).form
    assert form.asked == ("batch",) and form.tag == "-batch8" and form.described(INFO) is INFO
    assert "8 images at a time" in form.notes(INFO)[0] and GraphOptions(batch=8).given["batch"] == 8
    any_number = GraphOptions(batch=8, dynamic=True, nms=True).form
    assert any_number.asked == ("nms", "batch", "dynamic") and any_number.tag == "-nms-anybatch"
    assert "any number of images" in any_number.notes(INFO)[1]
    with pytest.raises(UsageError, match=r"dynamic= .* for tensorrt .* onnxruntime, openvino:"):
        targets.with_graph(targets.resolve("tensorrt"), GraphForm(dynamic=True))


def test_thresholds_without_nms_are_refused() -> None:
    with pytest.raises(UsageError, match="conf=, multi_label= of an export belong to NMS"):
        GraphOptions(conf=0.25, multi_label=False)


def test_the_command_and_recipes_take_it() -> None:
    call = read(["export", "a.pt", "nms=true", "conf=0.01", "max_det=20"])
    assert call[GraphOptions].form == GraphForm(nms=True, conf=0.01, max_det=20)
    recipe = make_recipe({"model": "a.pt", "data": "d.yaml", "graph": {"nms": True, "conf": 0.2, "batch": 2}})
    assert recipe.graph.form == GraphForm(nms=True, conf=0.2, batch=2) and recipe.validation.conf != 0.2
