"""Attention replaced by convolutions: exact where attention is linear, and an ordinary checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ultralytics", reason="the host is not installed")

import torch
from torch import nn
from ultralytics.nn.modules.block import AAttn, Attention

from yoloquant.errors import ArtifactError, CalibrationError, ModelError
from yoloquant.targets.edgetpu import attention as edgetpu_attention
from yoloquant.targets.edgetpu.attention import attention_blocks, replace_attention
from yoloquant.targets.edgetpu.edgetpu_options import REWRITTEN
from yoloquant.targets.edgetpu.fit_attention import fit_attention

CHANNELS = 16


class Net(nn.Module):
    """A convolution and one attention block."""

    def __init__(self, seed: int = 0, heads: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, CHANNELS, 3, 2, 1)
        self.attn: Any = Attention(CHANNELS, num_heads=heads)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):  # statistics that folding must not lose
                layer.weight.data.uniform_(0.5, 1.5)
                layer.bias.data.normal_(0, 0.3)
                layer.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
                layer.running_var.uniform_(0.4, 1.6)  # type: ignore[union-attr]
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.attn(self.first(image))  # type: ignore[no-any-return]

    def silence_queries(self) -> None:
        """Make every pixel attend to all pixels alike, whatever the image."""
        block = self.attn
        share = 2 * block.key_dim + block.head_dim
        for head in range(block.num_heads):
            rows = slice(head * share, head * share + block.key_dim)
            block.qkv.bn.weight.data[rows] = 0
            block.qkv.bn.bias.data[rows] = 0


def images(count: int, size: int = 12, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random((1, 3, size, size), np.float32) for _ in range(count)]


def error(net: nn.Module, other: nn.Module, image: np.ndarray) -> float:
    with torch.no_grad():
        wanted, got = (m(torch.from_numpy(image)) for m in (net, other))
    return float((wanted - got).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_that_averages_the_whole_map_is_reproduced(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest square covers a map of 6 x 6 from every pixel, so the mean over the map is one of the predictors."""
    monkeypatch.setattr(edgetpu_attention, "RIDGE", 1e-9)
    net = Net(heads=heads)
    net.silence_queries()
    result = replace_attention(net, images(100))
    assert result.explained["attn"] > 0.999 and result.images == 100
    assert error(net, result.module, images(1, seed=9)[0]) < 0.001


def test_what_is_linear_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every pixel attending alike and all squares covering the map, nothing is left to approximate."""
    monkeypatch.setattr(edgetpu_attention, "RIDGE", 1e-9)
    net = Net()
    net.silence_queries()
    result = replace_attention(net, images(400, size=2))
    assert error(net, result.module, images(1, size=2, seed=9)[0]) < 1e-5


def test_the_replacement_is_three_convolutions_and_the_original_is_untouched() -> None:
    net = Net()
    before = copy.deepcopy(net.state_dict())
    result = replace_attention(net, images(4))
    assert [type(m) for m in result.module.attn] == [nn.Conv2d] * 3  # type: ignore[union-attr]
    assert isinstance(net.attn, Attention) and not hasattr(net, REWRITTEN) and not net.attn._forward_pre_hooks
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert "attn was replaced" in getattr(result.module, REWRITTEN)[0] and "4 images" in result.summary()[0]


def test_equal_images_give_equal_weights_and_more_images_never_explain_less_of_themselves() -> None:
    net = Net()
    first, second = (replace_attention(net, images(4)).module.state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    explained = replace_attention(net, images(64)).explained["attn"]
    assert 0 < explained <= 1


def test_batches_count_like_single_images() -> None:
    net = Net()
    single = replace_attention(net, images(4)).module.state_dict()
    batch = replace_attention(net, [np.concatenate(images(4))]).module.state_dict()
    assert all(torch.allclose(single[k], batch[k], atol=1e-4) for k in single)


def test_refusals() -> None:
    with pytest.raises(CalibrationError, match="no image"):
        replace_attention(Net(), [])
    with pytest.raises(ModelError, match="nothing to replace"):
        replace_attention(nn.Sequential(nn.Conv2d(3, 4, 1)), images(1))
    area = nn.Sequential(AAttn(64, num_heads=2))
    with pytest.raises(ModelError, match="AAttn"):
        attention_blocks(area)


@pytest.mark.parametrize("family", ["yolo11", "yolov10n", "yolo26"])
def test_a_checkpoint_is_ordinary_and_tells_what_was_done(family: str, tmp_path: Path) -> None:
    from core_models import write_images
    from tiny_models import tiny_checkpoint
    from ultralytics import YOLO

    from yoloquant.bridge.checkpoint import load_model
    from yoloquant.data.calibration import CalibrationOptions

    data, source, out = write_images(tmp_path), tiny_checkpoint(tmp_path, family), tmp_path / "fitted.pt"
    options = CalibrationOptions(images=8)
    result = fit_attention(source, out, data=data, imgsz=64, calibration=options)
    assert result.explained and set(result.explained) == set(attention_blocks(load_model(source).module))
    loaded = load_model(out)  # without running code from the file
    assert not loaded.unsafe and not attention_blocks(loaded.module) and loaded.imgsz == (64, 64)
    assert getattr(loaded.module, REWRITTEN) == list(result.summary())
    plain = YOLO(str(out)).predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, device="cpu", verbose=False)
    assert len(plain) == 1
    with pytest.raises(ModelError, match="nothing to replace"):
        fit_attention(out, tmp_path / "again.pt", data=data, imgsz=64, calibration=options)
    with pytest.raises(ArtifactError, match=r"end in \.pt"):
        fit_attention(source, tmp_path / "fitted.onnx", data=data, imgsz=64, calibration=options)


@pytest.mark.slow
def test_with_fitted_attention_every_operator_maps_and_the_notes_say_so(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="the litert extra is not installed")
    from core_models import write_images
    from tiny_models import tiny_checkpoint

    from yoloquant import QuantizeOptions, quantize
    from yoloquant.data.calibration import CalibrationOptions
    from yoloquant.targets.edgetpu.companions import KEY
    from yoloquant.targets.edgetpu.target import EdgeTPUTarget

    data, source, out = write_images(tmp_path), tiny_checkpoint(tmp_path), tmp_path / "fitted.pt"
    calibration = CalibrationOptions(images=8)
    fit_attention(source, out, data=data, imgsz=64, calibration=calibration)
    options = QuantizeOptions(imgsz=64, calibration=calibration)
    model = EdgeTPUTarget().export(quantize(out, data=data, scheme="litert", options=options), tmp_path, "fitted")
    check = model.metadata[KEY]["check"]
    assert check["complete"] and check["macs_on_tpu"] == 1 and not check["ends"]
    assert "attention at" in model.notes[0] and "compare its accuracy" in model.notes[0]
    assert EdgeTPUTarget().load(model, threads=1)(np.zeros((1, 3, 64, 64), np.float32))[0].shape[0] == 1
