"""In which units errors of raw head results are added."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from core_models import family_graph

from yoloquant.graph.head_outputs import HeadOutput, Readout, head_outputs
from yoloquant.quantization.readout import compared, readers


def _heads(branch: str) -> tuple[HeadOutput, HeadOutput]:
    """A class head, and a head without a function behind it, of the given branch."""
    found = head_outputs(family_graph("yolo26", "detect", True))
    score = next(h for h in found if h.readout is Readout.CLASS_SIGMOID)
    box = next(h for h in found if h.op.branch == "box")
    return score, replace(box, op=replace(box.op, branch=branch))


def _size(branch: str, raw: torch.Tensor) -> torch.Tensor:
    score, head = _heads(branch)
    size = readers({score: torch.full((1, 3, 1, 2), 20.0), head: raw})[head].size
    assert size is not None
    return size


@pytest.mark.parametrize("branch", ["box", "other"])
def test_a_box_s_sides_count_relative_to_the_box(branch: str) -> None:
    """One box is 2 by 4 strides, the other ten times as large."""
    small, large = torch.tensor([1.0, 1.5, 1.0, 2.5]), torch.tensor([10.0, 15.0, 10.0, 25.0])
    size = _size(branch, torch.stack([small, large], 1).reshape(1, 4, 1, 2))
    assert torch.allclose(size[0, :, 0, 0], torch.tensor([2.0, 4.0, 2.0, 4.0]))
    assert torch.allclose(size[0, :, 0, 1], torch.tensor([20.0, 40.0, 20.0, 40.0]))


@pytest.mark.parametrize("branch", ["keypoint", "mask"])
def test_four_numbers_of_another_branch_are_no_box(branch: str) -> None:
    """Two keypoints left and right of their anchor would be a box of no width, whose errors counted for all."""
    raw = torch.tensor([-3.0, 0.5, 3.0, 0.5]).reshape(1, 4, 1, 1).expand(1, 4, 1, 2)
    size = _size(branch, raw)
    spread = raw.square().mean().sqrt() * 2  # of four numbers
    assert torch.allclose(size, spread.expand_as(size))


def test_four_classes_are_probabilities() -> None:
    score, _ = _heads("box")
    assert readers({score: torch.randn(1, 4, 2, 2)})[score].size is None


def test_a_distribution_is_compared_by_its_divergence() -> None:
    """Half the squared change of what is read is the divergence, for small changes of any logits."""
    (head,) = head_outputs(family_graph("yolo11", "classify"))
    generator = torch.Generator().manual_seed(0)
    raw = 6 * torch.randn(20, 50, generator=generator, dtype=torch.float64)
    moved = raw + 0.01 * torch.randn(20, 50, generator=generator, dtype=torch.float64)
    p, q = raw.log_softmax(1), moved.log_softmax(1)
    divergence = (p.exp() * (p - q)).sum(1)
    read = (compared(head, moved) - compared(head, raw)).square().sum(1) / 2
    assert torch.allclose(read, divergence, rtol=0.1, atol=1e-9)


def test_a_class_that_is_ruled_out_has_a_finite_slope() -> None:
    (head,) = head_outputs(family_graph("yolo11", "classify"))
    raw = torch.tensor([[0.0, 300.0, 1.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(compared(head, raw).sum(), raw)
    assert bool(torch.isfinite(slope).all())
