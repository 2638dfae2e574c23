from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from yoloquant import targets
from yoloquant.errors import UsageError
from yoloquant.targets import registry
from yoloquant.targets.base import Device, Target
from yoloquant.targets.edgetpu.target import EdgeTPUTarget
from yoloquant.targets.ethosu.target import EthosUTarget
from yoloquant.targets.tensorrt.target import TensorRTTarget

BUILT_IN = {"edgetpu", "litert", "onnxruntime", "openvino", "tensorrt"}


def third_party(name: str, **attributes: Any) -> type[Target]:
    """A complete Target class that nobody ships."""
    methods = dict.fromkeys(Target.__abstractmethods__, lambda self, *args: None)
    values = {"name": name, "extra": name, "suffix": ".x", "backend": "litert", **methods, **attributes}
    return type(name.title(), (Target,), values)


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Register entry points by name; a value that is an exception is raised when the entry point is loaded."""
    registered: dict[str, Any] = {}

    class Entry(SimpleNamespace):
        def load(self) -> Any:
            if isinstance(registered[self.name], Exception):
                raise registered[self.name]
            return registered[self.name]

    def find(*, group: str) -> list[Entry]:
        assert group == "yoloquant.targets"
        return [Entry(name=name, value=f"distribution:{name}") for name in registered]

    monkeypatch.setattr(registry.metadata, "entry_points", find)
    registry._known.cache_clear()
    yield registered
    registry._known.cache_clear()


def test_built_in_targets_are_found() -> None:
    assert set(targets.names()) >= BUILT_IN
    assert list(targets.names()) == sorted(targets.names())


def test_every_name_gives_its_target() -> None:
    for name in targets.names():
        assert targets.get(name).name == name
        assert targets.get(f" {name.upper()} ").name == name


@pytest.mark.parametrize(
    ("device", "target"),
    [
        ("jetson", "tensorrt"),
        ("coral", "edgetpu"),
        ("intel", "openvino"),
        ("raspberrypi", "litert"),
        ("android", "litert"),
        ("onnx", "onnxruntime"),
    ],
)
def test_devices_map_to_targets(device: str, target: str) -> None:
    assert targets.get(device).name == target
    assert targets.devices()[device] == (target,)


def test_no_device_is_the_name_of_another_target() -> None:
    assert not set(targets.devices()) & set(targets.names())


@pytest.mark.parametrize(("wrong", "near"), [("openvno", "openvino"), ("jetsen", "jetson"), ("litrt", "litert")])
def test_unknown_name_lists_the_known_and_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        targets.get(wrong)
    message = str(caught.value)
    assert f"'{wrong}' is unknown (did you mean '{near}'?)" in message
    assert all(name in message for name in (*BUILT_IN, "jetson", "coral"))


@pytest.mark.parametrize("name", ["coral:uint8", "edgetpu:uint8", " Coral:UINT8 "])
def test_a_variant_stands_behind_a_colon(name: str) -> None:
    found = targets.get(name)
    assert isinstance(found, EdgeTPUTarget) and found.options.input_type == "uint8"
    assert targets.get("coral").options.input_type == "int8"  # type: ignore[attr-defined]
    assert targets.get(found.wanted).wanted == found.wanted == "edgetpu:uint8"
    assert all(targets.get(name).wanted == name for name in targets.names())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("coral:int4", "input_type='int4' is not supported; allowed are int8, uint8"),
        ("openvino:uint8", "target 'openvino' has no variant 'uint8'; allowed are int8"),
        ("corall:uint8", r"'corall' is unknown \(did you mean 'coral'\?\)"),
    ],
)
def test_a_variant_that_does_not_exist_is_refused(wrong: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        targets.get(wrong)


def test_far_off_name_gets_no_guess() -> None:
    with pytest.raises(UsageError, match="'qqq' is unknown; allowed are"):
        targets.get("qqq")


def test_all_leaves_out_what_needs_a_choice_of_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EthosUTarget, "requires", ("json",))
    monkeypatch.setattr(EthosUTarget, "runs_with", ())
    assert "ethosu" in {t.name for t in targets.available()}
    assert "ethosu" not in {t.name for t in targets.resolve("all")}
    assert [t.wanted for t in targets.resolve("ethosu,ethosu:u55-32,imx93")] == [
        *("ethosu", "ethosu:u55-32", "ethosu:u65-256"),
    ]


def test_available_are_those_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorRTTarget, "requires", ("no_such_module_anywhere",))
    assert "tensorrt" not in {t.name for t in targets.available()}
    monkeypatch.setattr(TensorRTTarget, "requires", ("json",))
    monkeypatch.setattr(TensorRTTarget, "runs_with", ())
    assert "tensorrt" in {t.name for t in targets.available()}


def test_third_party_target_is_found(entry_points: dict[str, Any]) -> None:
    entry_points["hailo"] = third_party("hailo", devices=(Device("hailo8", "Hailo-8"),))
    assert "hailo" in targets.names()
    assert type(targets.get("hailo8")) is entry_points["hailo"]


def test_broken_third_party_does_not_take_the_others_away(
    entry_points: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    entry_points.update(broken=ImportError("no libfoo"), nonsense=object(), abstract=Target)
    with caplog.at_level(logging.WARNING):
        assert set(targets.names()) >= BUILT_IN
    assert "no libfoo" in caplog.text
    assert "nonsense" in caplog.text and "abstract" in caplog.text


def test_third_party_cannot_replace_a_built_in(entry_points: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    entry_points["tensorrt"] = third_party("tensorrt")
    with caplog.at_level(logging.WARNING):
        assert type(targets.get("tensorrt")) is TensorRTTarget
    assert "already the target 'tensorrt'" in caplog.text


def test_ambiguous_device_names_its_targets(entry_points: dict[str, Any]) -> None:
    entry_points["other"] = third_party("other", devices=(Device("jetson", "Another one"),))
    with pytest.raises(UsageError, match="served by several targets; name one of other, tensorrt"):
        targets.get("jetson")


def test_listing_loads_no_torch_and_no_runtime() -> None:
    code = (
        "import sys, yoloquant.targets as t; t.names(); t.devices(); t.available(); "
        "print(*(m for m in ('torch', 'ultralytics', 'onnx', 'onnxruntime', 'openvino', 'litert_torch', "
        "'ai_edge_litert', 'tensorrt_rtx') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
