"""What a target cannot run is refused before anything is calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conformance_models import tiny_host_model
from core_models import checkpoint
from validation_fakes import write_dataset

from yoloquant.data.calibration_options import CalibrationOptions
from yoloquant.errors import CalibrationError, PlanError, TargetError, UsageError
from yoloquant.graph import trace
from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.targets import get
from yoloquant.targets.base import Capabilities
from yoloquant.targets.prepare import prepare
from yoloquant.types import Task


def test_a_padded_pool_is_refused_for_openvino_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = write_dataset(tmp_path / "set", count=2), checkpoint(tmp_path / "best.pt")
    monkeypatch.setattr(trace, "padded_averages", lambda _: ["model.4.0:avg_pool2d:0"])
    with pytest.raises(PlanError, match=r"model\.4\.0:avg_pool2d:0 has a padding that counts"):
        prepare(model, [get("openvino")], data=data, options=QuantizeOptions(imgsz=64))
    # two images are too few, which is only found where they are looked at
    with pytest.raises(CalibrationError, match="at least 8 are needed"):
        prepare(model, [get("openvino")], data=data, options=QuantizeOptions(imgsz=64), keep_going=True)
    get("openvino:fp32").check_graph(None)  # type: ignore[arg-type]  # a float model is not concerned


def test_what_is_calibrated_later_has_its_class_scores_shifted_too(tmp_path: Path) -> None:
    data, model = write_dataset(tmp_path / "set", count=8), checkpoint(tmp_path / "best.pt")
    options = QuantizeOptions(imgsz=64, calibration=CalibrationOptions(images=8))
    first = prepare(model, [get("openvino")], data=data, options=options)
    both = prepare(first.save(tmp_path / "int8.pt"), [get("litert")], data=data, options=options)
    alone = prepare(model, [get("litert")], data=data, options=options)
    for artifact, scheme in ((first, "openvino"), (alone, "litert")):
        wanted = {path: value.tolist() for path, value in artifact.bias[scheme].items()}
        assert any(map(any, wanted.values()))
        assert {path: value.tolist() for path, value in both.bias[scheme].items()} == wanted


@pytest.mark.parametrize(
    ("target", "options", "refused"),
    [
        ("onnxruntime", {"precision": "model.3:w8a16"}, r"in w8a16, .* for model\.3 \(1 in all\); allowed .*: float"),
        ("qnn", {"precision": "model.3:fp16"}, ""),
        ("litert", {"float_layers": "model.3"}, r"computes in integers throughout, .* leaves model\.3 in float"),
        ("litert:dynamic", {"float_layers": "model.3"}, ""),  # multiplies out what it has not calibrated
    ],
)
def test_precisions_of_layers_are_refused_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, options: dict[str, str], refused: str
) -> None:
    chosen = get(target)
    monkeypatch.setattr(type(chosen), "require", classmethod(lambda _: None))
    data, model = write_dataset(tmp_path / "set", count=2), checkpoint(tmp_path / "best.pt")
    # two images are too few, which is only found where they are looked at
    error, message = (PlanError, refused) if refused else (CalibrationError, "at least 8 are needed")
    with pytest.raises(error, match=message):
        prepare(model, [chosen], data=data, options=QuantizeOptions(imgsz=64, **options))  # type: ignore[arg-type]
    if refused:
        with pytest.raises(CalibrationError, match="at least 8 are needed"):
            prepare(model, [chosen], data=data, options=QuantizeOptions(imgsz=64, **options), keep_going=True)  # type: ignore[arg-type]


def test_a_machine_or_a_task_that_a_target_lacks_is_told_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = write_dataset(tmp_path / "set", count=2), checkpoint(tmp_path / "best.pt")
    qnn = get("qnn")
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.31"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(TargetError, match=r"glibc 2\.35 or newer .*; this machine has glibc 2\.31"):
        prepare(model, [qnn], data=data, options=QuantizeOptions(imgsz=64))
    monkeypatch.setattr(type(qnn), "require", classmethod(lambda _: None))
    monkeypatch.setattr(type(qnn), "capabilities", Capabilities(tasks=(Task.POSE,)))
    with pytest.raises(TargetError, match="'qnn' exports pose models, got a detect model"):
        prepare(model, [qnn], data=data, options=QuantizeOptions(imgsz=64))


class Quotient(torch.nn.Module):
    """Divides by a constant, and once more by what it computes."""

    def __init__(self, computed: bool) -> None:
        super().__init__()
        self.computed = computed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x / 2.5
        return x / (1 + x.sigmoid()) if self.computed else x


def test_a_division_that_litert_gets_wrong_is_refused_by_name() -> None:
    host = tiny_host_model()
    host.module.model[3].act = Quotient(computed=True)
    graph = TracedModel.of(host, (64, 64)).graph
    for name in ("litert", "edgetpu", "ethosu"):
        with pytest.raises(
            PlanError, match=rf"{name}: .* model\.3\.act:div:1 divides so \(1 in all\); export litert:fp32"
        ):
            get(name).check_graph(graph)
    for name in ("litert:fp32", "litert:fp16", "litert:dynamic", "litert:weights", "onnxruntime"):
        get(name).check_graph(graph)
    host.module.model[3].act = Quotient(computed=False)
    get("litert").check_graph(TracedModel.of(host, (64, 64)).graph)


def test_float_precisions_of_a_plain_checkpoint_need_no_images(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "best.pt")
    floats = [get("onnxruntime:fp32"), get("onnxruntime:fp32")]
    artifact = prepare(model, floats, options=QuantizeOptions(imgsz=64), named=["imgsz", "cache"])
    assert not artifact.plans and artifact.info.imgsz == (64, 64)
    exported = floats[0].export(artifact, tmp_path / "out", "best")
    assert exported.path.is_file()
    image = torch.rand(1, 3, 64, 64)
    runner = floats[0].load(exported, threads=1)
    found, wanted = runner(image.numpy())[0], artifact.graph.module(image)[0]
    assert np.abs(found - np.asarray(wanted.detach())).max() < 1e-2 * np.abs(found).max()


@pytest.mark.parametrize("names", [["onnxruntime"], ["onnxruntime:fp32", "onnxruntime"], ["onnxruntime:dynamic"], []])
def test_integers_need_images(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(UsageError, match=r"plain checkpoint; pass data=<data yaml>"):
        prepare(checkpoint(tmp_path / "best.pt"), [get(n) for n in names], options=QuantizeOptions(imgsz=64))


def test_what_says_how_to_quantize_is_refused_where_nothing_is(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "best.pt")
    with pytest.raises(
        UsageError, match=r"images=, scheme= cannot be used here: nothing is quantized for onnxruntime:fp32"
    ):
        prepare(
            model, [get("onnxruntime:fp32")], options=QuantizeOptions(imgsz=64), named=["images", "scheme", "imgsz"]
        )
