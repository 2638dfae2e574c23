from __future__ import annotations

import pytest

from yoloquant import targets
from yoloquant.bundle.devices import all_devices, device_named, resolve
from yoloquant.errors import UsageError
from yoloquant.runtime.backends import backend_names
from yoloquant.targets.base import Target


def test_every_device_is_served_by_its_target() -> None:
    by_device = targets.devices()
    for device in all_devices().values():
        assert by_device[device.name] == (device.target.name,)
        assert device.backend in backend_names()
        assert targets.get(device.name).name == device.target.name


def test_every_target_has_a_device() -> None:
    assert {device.target.name for device in all_devices().values()} >= {
        "onnxruntime",
        "openvino",
        "litert",
        "edgetpu",
        "tensorrt",
    }


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("jetson", "jetson"),
        (" Coral ", "coral"),
        ("litert", "raspberrypi"),
        ("android", "android"),
        ("openvino", "intel"),
        ("onnxruntime", "onnx"),
        ("cpu", "onnx"),
        ("edgetpu", "coral"),
        ("tensorrt", "jetson"),
    ],
)
def test_devices_by_their_own_and_their_targets_name(name: str, device: str) -> None:
    assert device_named(name).name == device


def test_a_variant_of_a_device_reaches_its_target() -> None:
    (found,) = resolve("coral:uint8")
    assert (found.name, found.target.name, found.wanted) == ("coral", "edgetpu", "edgetpu:uint8")
    assert device_named("coral").wanted == "edgetpu"


def test_variants_of_a_device_are_bundles_of_their_own() -> None:
    """The second of two was dropped without a word, and took the first one's place when it was asked for alone."""
    found = resolve("raspberrypi,raspberrypi:w8a16,litert,litert:int8,litert:w8a16,android:w8a16")
    assert [(d.folder, d.wanted) for d in found] == [
        *(("raspberrypi", "litert"), ("raspberrypi-w8a16", "litert:w8a16"), ("android-w8a16", "litert:w8a16")),
    ]
    assert device_named("imx93").folder == "imx93", "its own variant"


def test_names_in_one_text_each_once() -> None:
    assert [d.name for d in resolve("onnx, intel,onnxruntime")] == ["onnx", "intel"]
    assert [d.name for d in resolve(["coral"])] == ["coral"]


def test_all_is_what_can_be_built_here(monkeypatch: pytest.MonkeyPatch) -> None:
    available = tuple(t for t in targets.available() if t.name != "openvino")

    def fewer() -> tuple[Target, ...]:
        return available

    monkeypatch.setattr(targets, "available", fewer)
    served = {t.name for t in available if t.in_all}
    assert [d.name for d in resolve("all")] == [d.name for d in all_devices().values() if d.target.name in served]
    assert "intel" not in {d.name for d in resolve("all")}


def test_unknown_device_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no bundle for 'jetsn' \(did you mean 'jetson'\?\).*raspberrypi"):
        resolve("jetsn")
    with pytest.raises(UsageError, match="name at least one device"):
        resolve(" , ")


def test_requirements_name_the_runtime_alone() -> None:
    for device in all_devices().values():
        lines = device.device.requirements.splitlines()
        assert lines[:2] == ["numpy", "opencv-python-headless"]
        everywhere = [line for line in lines if 'python_version < "3.9"' not in line]
        if device.backend == "executorch":  # whose Python takes torch tensors; apps have other languages
            assert everywhere[2:] == ["executorch>=1.5.1", "torch>=2.13"]
            continue
        assert len(everywhere) == 3, "one runtime, or the bridge to CUDA"
        assert not any("torch" in line or "ultralytics" in line or "tensorrt" in line for line in lines)
