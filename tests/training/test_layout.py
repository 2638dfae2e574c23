"""Memory layout of a quantized model: channels-last while it trains on a CPU, plain while it is scored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import tiny_images
from torch import Tensor, nn
from train_runs import live, planned

from yoloquant.training.qat import fake_quant as kernels
from yoloquant.training.qat.prepare import prepare_qat


@pytest.fixture(scope="module")
def model() -> Any:
    artifact, plan = planned()
    found = live(artifact)
    prepare_qat(found, artifact.graph, plan)
    found.model[-1].training = True  # raw outputs; BatchNorm stays as it is
    return found


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(tiny_images(1, seed=3)[0])


def layouts(model: Any, images: Tensor) -> tuple[Any, set[bool]]:
    """Raw outputs, and whether images of several channels reached convolutions in the channels-last layout."""
    seen: set[bool] = set()

    def see(module: nn.Module, args: Any) -> None:
        if min(args[0].shape[1:]) > 1:
            seen.add(args[0].stride(1) == 1)  # also a part of the channels

    convolutions = [m for m in model.model[:3].modules() if isinstance(m, nn.Conv2d)]
    handles = [m.register_forward_pre_hook(see) for m in convolutions]
    try:
        return model(images), seen
    finally:
        for handle in handles:
            handle.remove()


def test_only_training_changes_the_layout(model: Any, images: Tensor) -> None:
    _, trained = layouts(model, images)
    with torch.no_grad():
        _, scored = layouts(model, images)
    assert trained == {True} and scored == {False}


def test_both_layouts_give_the_same_but_for_a_rare_step(model: Any, images: Tensor) -> None:
    trained, _ = layouts(model, images)
    with torch.no_grad():
        scored, _ = layouts(model, images)
    for name in ("boxes", "scores"):
        spread = float(scored[name].abs().max())
        aside = ((trained[name] - scored[name]).abs() > 1e-5 * spread).float().mean()
        assert float(aside) < 0.02 and torch.allclose(trained[name], scored[name], atol=0.1 * spread)


def test_compiled_loops_and_passes_train_alike(model: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss's gradients, for every parameter of the model and of its ranges."""
    pytest.importorskip("numba", reason="the compiled loops need numba")

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        outputs = model(images)
        sum((outputs[name].float() ** 2).mean() for name in ("boxes", "scores")).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    found = gradients()
    monkeypatch.setattr(kernels, "_fused", lambda: None)
    wanted = gradients()
    assert set(found) == set(wanted) and any("log_ratio" in name for name in found)
    for name, grad in wanted.items():
        assert torch.allclose(found[name], grad, rtol=1e-3, atol=1e-3 * max(float(grad.abs().max()), 1e-6)), name
