"""Raw head outputs are recognised by what follows them, in every family and for every task."""

from __future__ import annotations

import pytest
import torch
from core_models import family_graph
from torch import nn

from yoloquant.graph.head_outputs import Readout, head_outputs
from yoloquant.graph.trace import trace
from yoloquant.quantization.readout import expected
from yoloquant.types import ModelInfo, Task

CASES = [
    ("yolov5", "detect", None),
    ("yolov8", "pose", None),
    ("yolov10n", "detect", True),
    ("yolo11", "segment", None),
    ("yolo11", "obb", None),
    ("yolo12", "detect", None),
    ("yolo26", "detect", True),
    ("yolo26", "detect", False),
    ("yolo26", "segment", True),
]


@pytest.mark.parametrize(("family", "task", "end2end"), CASES)
def test_readouts_of_the_families(family: str, task: str, end2end: bool | None) -> None:
    graph = family_graph(family, task, end2end)
    found = head_outputs(graph)
    assert [h.op for h in found] == list(graph.heads)
    for head in found:
        if head.op.branch == "score":
            assert head.readout is Readout.CLASS_SIGMOID
        elif head.op.branch == "box" and not family.startswith("yolo26"):
            assert (head.readout, head.bins) == (Readout.DISTRIBUTION, 16)
        elif head.op.branch == "keypoint":
            assert (head.readout, head.bins) == (Readout.KEYPOINTS, 3)
        else:
            assert head.readout is Readout.LINEAR
    assert sum(h.readout is Readout.CLASS_SIGMOID for h in found) == 3


def test_a_keypoints_visibility_is_read_after_its_sigmoid() -> None:
    """So that the range of the tensor follows its coordinates, not how sure visibilities are."""
    head = next(h for h in head_outputs(family_graph("yolov8", "pose")) if h.readout is Readout.KEYPOINTS)
    raw = torch.randn(1, 15, 2, 4) * 5
    read = expected(head, raw)
    seen = torch.arange(15) % 3 == 2
    assert torch.equal(read[:, ~seen], raw[:, ~seen])
    torch.testing.assert_close(read[:, seen], raw[:, seen].sigmoid())


def test_a_classifier_ends_in_a_softmax() -> None:
    (head,) = head_outputs(family_graph("yolo11", "classify"))
    assert head.readout is Readout.CLASS_SOFTMAX


class _Joined(nn.Module):
    """A head with other names, whose two results are joined before they are split again, as older releases do."""

    def __init__(self, order: tuple[str, str]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.probabilities, self.places = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 4, 1)
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.first(x)
        joined = torch.cat([getattr(self, name)(features) for name in self.order], 1).flatten(2)
        sizes = [3 if name == "probabilities" else 4 for name in self.order]
        parts = dict(zip(self.order, joined.split(sizes, 1), strict=True))
        return torch.cat((parts["places"] * 8, parts["probabilities"].sigmoid()), 1)


@pytest.mark.parametrize("order", [("probabilities", "places"), ("places", "probabilities")])
def test_channels_are_followed_through_a_join(order: tuple[str, str]) -> None:
    graph = trace(_Joined(order).eval(), ModelInfo(Task.DETECT, ("a", "b", "c"), (32, 32)))
    readouts = {h.op.module: h.readout for h in head_outputs(graph)}
    assert readouts == {"probabilities": Readout.CLASS_SIGMOID, "places": Readout.LINEAR}
