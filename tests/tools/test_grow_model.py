"""A grown model computes what the small one does, and is free to learn more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tools.grow_model import grow


def _network(scale: str) -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    return DetectionModel(f"yolo11{scale}.yaml", nc=5, verbose=False)


def _features(model: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the layers behind the attention block, behind the neck and in the heads give."""
    seen: dict[str, torch.Tensor] = {}
    layers = model.get_submodule("model")
    watched = {"10": layers[10], "22": layers[22], "box": layers[23].cv2[2], "class": layers[23].cv3[2]}
    for name, module in watched.items():
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        model.eval()(image)
    return seen


def test_computes_the_same() -> None:
    small, large, image = _network("n"), _network("s"), torch.rand(2, 3, 64, 64)
    for module in small.modules():  # or an untrained network's results hardly depend on the image
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        small.train()(image)
        grow(small, large)
    before, after = _features(small, image), _features(large, image)
    for name, value in before.items():
        doubled = after[name].shape[1] == 2 * value.shape[1]
        kept = after[name][:, ::2] if doubled else after[name]
        assert (kept - value).abs().max() < 1e-3 * value.std(), name
        assert not doubled or (after[name][:, 1::2] - value).abs().max() > 0.1 * value.std(), (
            "new channels are their own"
        )


def test_new_channels_learn() -> None:
    small, large = _network("n"), _network("s")
    with torch.no_grad():
        grow(small, large)
    second = large.get_submodule("model")[1].conv.weight
    large.train()(torch.rand(1, 3, 64, 64))["boxes"].square().sum().backward()
    assert not second[::2, 1::2].any(), "old channels do not read new ones yet"
    assert second.grad[::2, 1::2].any(), "but may"


def test_narrower_is_refused() -> None:
    with pytest.raises(SystemExit, match="needs a wider model"):
        grow(_network("s"), _network("n"))
