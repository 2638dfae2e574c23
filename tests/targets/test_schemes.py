"""Which schemes are calibrated where it is known what is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from core_models import checkpoint, write_images

from yoloquant import api
from yoloquant.errors import UsageError
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.quantization.scheme import PORTABLE
from yoloquant.targets import resolve
from yoloquant.targets.prepare import prepare
from yoloquant.targets.schemes import AUTO, needed_schemes, resolve_schemes, schemes_of


def names(*asked: str, keeps: bool = False, scheme: str = AUTO) -> list[str]:
    return [s.name for s in needed_schemes(scheme, resolve(asked), keeps=keeps)]


def test_auto_is_what_the_targets_need() -> None:
    assert names("onnxruntime", "openvino") == ["onnxruntime", "openvino"]
    # two runtimes of one scheme are calibrated once
    assert names("litert", "edgetpu") == [s.name for s in schemes_of(resolve("litert"))]
    # a checkpoint that stays may be exported to anything
    assert names("onnxruntime", keeps=True) == [PORTABLE.name, "onnxruntime"]
    # nothing but float: there must be a plan all the same
    assert names("onnxruntime:fp32") == [PORTABLE.name]


def test_what_is_named_counts() -> None:
    assert names("onnxruntime", scheme="litert", keeps=True) == ["litert"]
    assert needed_schemes("portable,openvino", resolve("onnxruntime")) == resolve_schemes("portable,openvino")
    with pytest.raises(UsageError, match="scheme 'litter' is unknown"):
        names("onnxruntime", scheme="litter")


def test_a_device_names_the_scheme_of_its_runtime() -> None:
    with pytest.raises(UsageError, match=r"scheme 'raspberrypi' is unknown .did you mean 'litert'"):
        resolve_schemes("raspberrypi")


def test_an_export_calibrates_its_targets_alone_and_alike(tmp_path: Path) -> None:
    model, data = checkpoint(tmp_path / "m.pt"), write_images(tmp_path / "set")
    options = QuantizeOptions(imgsz=64, cache=False)
    every = api.quantize(model, data=data, options=options)
    alone = prepare(model, resolve("openvino,litert"), data=data, options=options)
    assert set(alone.plans) == {"openvino", "litert"} < set(every.plans)
    for name, plan in alone.plans.items():
        assert plan == every.plans[name]
        assert {k: v.tolist() for k, v in alone.bias[name].items()} == {
            k: v.tolist() for k, v in every.bias[name].items()
        }
