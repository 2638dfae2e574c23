from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from colour_model import INFO

from yoloquant.bundle.devices import all_devices
from yoloquant.bundle.expected import Expected, Tensor
from yoloquant.bundle.readme import render
from yoloquant.bundle.tolerances import TOLERANCES
from yoloquant.runtime.apps.golden import Golden, GoldenImage
from yoloquant.runtime.core.bundle_manifest import ExportAccuracy
from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task

ONE = Golden((GoldenImage("golden/a.png", "golden/a.npz", "ab", ()),), TOLERANCES, {
    "backend": "b", "version": "1.2", "machine": "m", "simulated": False,
})  # fmt: skip
DEVICES = all_devices()
EXPECTED = Expected(
    ONE,
    ExportAccuracy({"map50_95": 0.4321, "map50": 0.6}, 128),
    (Tensor("input", "int8", (1, 64, 96, 3), 0.0039, -128), Tensor("output_0", "float32", (1, 7, 96))),
    ("mind the gap",),
)


def text(name: str, layout: HeadLayout = HeadLayout.DECODED, info: ModelInfo = INFO) -> str:
    device = DEVICES[name]
    exported = ExportedModel(device.target.name, Path("m"), info, layout, metadata={"planned_convs": ["a", "b"]})
    return render(device, exported, EXPECTED, "model/m")


@pytest.mark.parametrize("name", DEVICES)
def test_every_readme_says_how_to_verify_and_what_was_measured(name: str) -> None:
    page = text(name)
    assert page.startswith(f"# 3-class detector for {DEVICES[name].device.title}")
    assert page.count("python -m yoloquant_runtime verify") >= 2
    assert "mAP50-95 0.4321, mAP50 0.6000 on 128 images" in page and "1 point of mAP50-95" in page
    assert "Note: mind the gap." in page
    assert f"at most {TOLERANCES.boxes:g} of their standard deviation" in page and "90 % of the detections" in page
    assert "| input | int8 | 1 x 64 x 96 x 3 | 0.0039 | -128 |" in page
    assert "64 x 96 pixels (height x width)" in page
    assert not any(mark in page for mark in ("{{", "{%", "None", "True", "False", "\n\n\n"))


def test_each_device_has_a_section_of_its_own() -> None:
    pages = {name: text(name) for name in DEVICES}
    marks = {
        "jetson": ("build_engine", "2 of them are listed", "--system-site-packages"),
        "coral": ("edgetpu_compiler",),
        "raspberrypi": ("vcgencmd",),
        "android": ("src/main/assets", "7 rows of 96 columns", "fractions of the input (multiply"),
        "intel": ("device=GPU", "hint=throughput", "NPU"),
    }
    for name, words in marks.items():
        for word in words:
            assert word in pages[name]
    for word in ("vcgencmd", "edgetpu_compiler", "src/main/assets", "hint=throughput", "jetson_clocks"):
        assert sum(word in page for page in pages.values()) == 1


def test_the_tensor_contract_follows_the_layout() -> None:
    assert "fractions of the input, then one score per class" in text("raspberrypi")
    assert "in pixels of the input, then one score per class" in text("onnx")
    assert "raw heads" in text("coral", HeadLayout.RAW)
    assert "one row per detection" in text("onnx", HeadLayout.END2END, replace(INFO, end2end=True))


def test_visibilities_are_named_where_a_file_has_them_apart() -> None:
    info = replace(INFO, task=Task.POSE, kpt_shape=(5, 3), strides=(8, 16, 32))
    device, output = DEVICES["coral"], EXPECTED.tensors[1]
    exported = ExportedModel(device.target.name, Path("m"), info, HeadLayout.RAW)
    for outputs, named in ((9, False), (12, True)):
        page = render(device, exported, replace(EXPECTED, tensors=(EXPECTED.tensors[0], *[output] * outputs)), "m")
        assert "then the keypoint" in page and ("then the visibility tensors" in page) is named


def test_without_a_figure_it_says_so() -> None:
    device = DEVICES["onnx"]
    exported = ExportedModel(device.target.name, Path("m"), INFO, HeadLayout.DECODED)
    assert "No accuracy: no labelled data were given" in render(device, exported, replace(EXPECTED, accuracy=None), "m")
