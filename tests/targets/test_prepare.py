"""What a target cannot run is refused before anything is calibrated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conformance_models import tiny_host_model
from core_models import checkpoint
from validation_fakes import write_dataset

from yoloquant.errors import CalibrationError, PlanError
from yoloquant.graph import trace
from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.targets import get
from yoloquant.targets.prepare import prepare


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
