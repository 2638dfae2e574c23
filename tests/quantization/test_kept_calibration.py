"""A calibration is taken again where everything that decides it is the same, and only there."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from core_models import checkpoint, tiny_host, write_images
from torch import nn

from yoloquant.bridge.network_identity import network_identity
from yoloquant.data.calibration import calibration_set
from yoloquant.data.calibration_options import CalibrationOptions
from yoloquant.quantization import ptq
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.calibrate import observe
from yoloquant.quantization.kept_calibration import _key
from yoloquant.quantization.ptq import quantize
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.quantization.range_options import CalibrationRecipe
from yoloquant.targets.schemes import resolve_schemes


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often images were calibrated on."""
    done: list[int] = []
    monkeypatch.setattr(ptq, "observe", lambda *a, **k: done.append(1) or observe(*a, **k))  # type: ignore[func-returns-value]
    return done


class _Own(nn.SiLU):
    pass


class Job:
    def __init__(self, folder: Path) -> None:
        self.model, self.data = checkpoint(folder / "m.pt"), write_images(folder / "set", val=8)
        self.options = QuantizeOptions(
            imgsz=64, calibration=CalibrationOptions(images=8), cache=str(folder / "store"), ranges=CalibrationRecipe()
        )

    def key(self, scheme: Any = "onnxruntime,openvino", model: Any = None, **changes: Any) -> Any:
        """What a calibration is kept under."""
        options = replace(self.options, **changes)
        traced = ptq._traced(model or self.model, options)
        schemes = resolve_schemes(scheme) if isinstance(scheme, str) else scheme
        images = calibration_set(self.data, options.calibration)
        return _key(traced, schemes, images, ptq._scored_images(self.data, options), options)

    def __call__(self, **changes: Any) -> Artifact:
        options = replace(self.options, **changes)
        return quantize(self.model, data=self.data, schemes=resolve_schemes("onnxruntime,openvino"), options=options)


def test_the_second_calibration_is_the_first(
    tmp_path: Path, passes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(tmp_path)
    first = job()
    said = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert said, "the audit warns of these images"
    caplog.clear()
    second = job()
    assert len(passes) == 1 and "graph" not in vars(second.traced), "not even traced"
    assert second.state() == first.state() and second.to_dict() == first.to_dict()
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == said, "warned again"
    files = [a.save(tmp_path / name / "m_int8.pt").read_bytes() for a, name in ((first, "a"), (second, "b"))]
    assert files[0] == files[1]
    uncached = job(cache=False)
    assert len(passes) == 2 and uncached.state() == first.state()


def test_whatever_decides_ranges_makes_another_key(tmp_path: Path) -> None:
    job = Job(tmp_path)
    known = job.key()
    assert known is not None and job.key() == known
    changes: list[dict[str, Any]] = [
        {"scheme": "onnxruntime"},
        {"imgsz": 96},
        {"calibration": CalibrationOptions(images=9)},
        {"calibration": CalibrationOptions(images=8, seed=4)},
        {"ranges": CalibrationRecipe(score_shift=False)},
        {"float_layers": ("model.1.conv",)},
        {"native_ranges": False},
        {"max_det": 7},
    ]
    for change in changes:
        assert job.key(**change) not in (None, known), change
    assert job.key(cache="elsewhere") == known, "where it is kept decides nothing"
    for split in ("val", "train"):  # what is scored is part of the audit
        for image in (tmp_path / "set" / "images" / split).iterdir():
            cv2.imwrite(str(image), ~np.asarray(cv2.imread(str(image))))
        changed = job.key()
        assert changed not in (None, known)
        known = changed
    job.model.write_bytes(checkpoint(tmp_path / "n.pt", train_args={"imgsz": 64, "data": "other"}).read_bytes())
    assert job.key() not in (None, known), "its arguments travel on"


def test_what_no_key_can_tell_is_not_kept(tmp_path: Path) -> None:
    job = Job(tmp_path)
    (scheme,) = resolve_schemes("openvino")
    theirs = replace(scheme, place=lambda graph: scheme.place(graph))
    assert job.key(scheme=[scheme]) is not None
    assert job.key(scheme=[theirs]) is None
    assert job.key(points=lambda graph, point: point.spec) is None
    assert job.key(model=tiny_host().module) is None


def test_a_network_is_known_by_weights_and_settings() -> None:
    host = tiny_host()
    known = network_identity(host)
    assert known is not None and known == network_identity(replace(host, source="elsewhere/m.pt"))
    for layer, name, value in (
        (-1, "max_det", 5),
        (-1, "_end2end", True),
        (0, "act", nn.ReLU()),
    ):
        changed: Any = copy.deepcopy(host)
        setattr(changed.module.model[layer], name, value)
        assert network_identity(changed) not in (None, known), name
    other = copy.deepcopy(host)
    module: Any = other.module
    module.model[0].conv.weight.data *= 1.5
    assert network_identity(other) not in (None, known)
    module.model[0].act = _Own()
    assert network_identity(other) is None, "its code is in no package"
    assert network_identity(replace(host, unsafe=True)) is None


def test_a_network_with_functions_hung_on_its_layers_is_not_known() -> None:
    for hang in (
        lambda layer: layer.register_forward_hook(lambda module, args, result: result * 0),
        lambda layer: layer.register_forward_pre_hook(lambda module, args: args),
        lambda layer: setattr(layer, "forward", lambda x: x * 0),
        lambda layer: setattr(layer, "forward", layer.forward_fuse),
    ):
        host: Any = copy.deepcopy(tiny_host())  # others share it
        assert network_identity(host) is not None
        hang(host.module.model[0])
        assert network_identity(host) is None
