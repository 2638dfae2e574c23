"""Following channels: against Torch-Pruning where it can, and through blocks that nobody has seen before."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import pytest
import torch
from pruning_cases import Choice, case, case_of, image, orders, plan_for, plan_with, raw
from torch import Tensor, nn

from yoloquant.errors import ModelError
from yoloquant.pruning.channel_graph import by_parameter
from yoloquant.pruning.groups import Groups, find_groups
from yoloquant.pruning.remove_channels import pruned, remove_channels
from yoloquant.pruning.trace_channels import trace_channels

Found = dict[tuple[str, int], tuple[int, ...]]


class Block(nn.Module):
    """A custom block between layers of eight channels."""

    out = 8

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.linear, self.norm, self.prelu = nn.Linear(8, 8), nn.LayerNorm(8), nn.PReLU(8)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2, groups=8)
        self.gain = nn.Parameter(torch.rand(8))
        self.register_buffer("scale", torch.rand(1, 8, 1, 1))


class Plain(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


class Grouped(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.grouped(self.b(x))


class Unknown(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) * self.b(x).cumsum(2)


class Shuffle(Block):
    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return self.a(x).view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class UnevenChunk(Block):
    def forward(self, x: Tensor) -> Tensor:
        p, q = torch.cat((self.grouped(x), self.a(x)), 1).chunk(2, 1)
        return p * q


class WrittenSplit(Block):
    out = 4

    def forward(self, x: Tensor) -> Tensor:
        p, q = self.a(x).split([4, 4], 1)
        return p + q


class Slice(Block):
    out = 4

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x)[:, :4] + self.b(x)[:, 4:]


class Twice(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(torch.relu(self.b(x))) * self.a(x)


class Gain(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) * self.gain.view(1, -1, 1, 1) * self.scale


class Channelwise(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.norm(self.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class Tokens(Block):
    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y, z = self.a(x).flatten(2).transpose(1, 2), self.b(x).flatten(2).transpose(1, 2)
        return self.linear(torch.cat((y, z), 1))[:, : h * w].transpose(1, 2).reshape(b, c, h, w)


class FlatConcat(Block):
    out = 16

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return torch.cat((self.a(x).flatten(2), self.b(x).flatten(2)), 1).view(b, -1, h, w)


class Excite(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return y * self.b(y.mean((2, 3), keepdim=True)).sigmoid()


class Flip(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x).flip(1)


class Beside(Block):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.a(x), self.grouped(x)), 2)


class Attend(Block):
    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k = self.a(x).flatten(2).transpose(1, 2), self.b(x).flatten(2).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(q, k, k).transpose(1, 2).reshape(b, c, h, w)


class Product(Block):
    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return (self.linear.weight @ self.a(x).flatten(2)).reshape(b, c, h, w)


class WrittenSize(Block):
    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return self.a(x).view(b, 8, h * w).view(b, 8, h, w)


class Upsampled(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.a(x))


class Padded(Block):
    out = 10

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(self.a(x), (0, 0, 0, 0, 1, 1))


class Network(nn.Module):
    """Two layers, a block and a head."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)]
        self.model = nn.Sequential(*first, block, nn.Conv2d(block.out, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


def dropped(groups: Groups, share: float) -> frozenset[int]:
    """Different channels of every part, so that a part left out would show."""
    found: set[int] = set()
    for group in groups.groups:
        gone = min(int(group.count * share + 1), group.count - 1)
        for i, atom in enumerate(group.atoms):
            labels = atom.labels[i % 2 :] + atom.labels[: i % 2]
            found.update(labels[: gone * atom.step])
    return frozenset(found)


@pytest.mark.parametrize("kind", Block.__subclasses__())
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_block_that_nobody_knows_costs_freedom_and_never_correctness(kind: type[Block], share: float) -> None:
    torch.manual_seed(0)
    network = Network(kind()).eval()
    found = trace_channels(network, (8, 8))
    groups = find_groups(found)
    assert "model.0" in groups.by_name  # something can always go
    module = copy.deepcopy(network)
    remove_channels(module, found, dropped(groups, share))
    x = image(size=8)
    assert module(x).shape == network(x).shape
    assert sum(p.numel() for p in module.parameters()) < sum(p.numel() for p in network.parameters())
    assert dict(module.named_buffers()).keys() == dict(network.named_buffers()).keys()


def test_a_layer_that_runs_twice_has_one_set_of_channels() -> None:
    groups = find_groups(trace_channels(Network(Twice()).eval(), (8, 8)))
    group = groups["model.3"]
    assert {m.parameter for m in groups.network.dims if set(m.labels) & set(group.atoms[0].labels)} >= {
        "model.3.weight",
        "model.5.b.weight",
        "model.5.a.weight",
    }
    by_parameter(groups.network.dims)  # raises where one axis has two meanings


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    class Branch(Block):
        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if bool(x.sum() > 0) else x

    with pytest.raises(ModelError, match="cannot be traced at imgsz=8x8"):
        trace_channels(Network(Branch()), (8, 8))


def raw_layers(module: Any, x: Tensor) -> list[Tensor]:
    """The forward pass of a YOLO up to the raw branches of its head."""
    outputs: list[Any] = []
    for layer in module.model[:-1]:
        if layer.f != -1:
            x = outputs[layer.f] if isinstance(layer.f, int) else [x if j == -1 else outputs[j] for j in layer.f]
        x = layer(x)
        outputs.append(x)
    head = module.model[-1]
    features = [outputs[j] for j in head.f]
    return [branch[i](f) for branch in (head.cv2, head.cv3) for i, f in enumerate(features)]


def ours(groups: Groups, label: int) -> Found:
    """Positions of a label by layer and axis."""
    found: Found = {}
    for member in groups.network.dims:
        positions = tuple(i for i, v in enumerate(member.labels) if v == label)
        if positions:
            found[member.parameter.rpartition(".")[0], member.axis] = positions
    return found


def theirs(graph: Any, names: dict[nn.Module, str], layer: nn.Module, channel: int) -> Found:
    """The same as Torch-Pruning finds it."""
    import torch_pruning as tp

    found: dict[tuple[str, int], set[int]] = defaultdict(set)
    for dependency, positions in graph.get_pruning_group(layer, tp.prune_conv_out_channels, idxs=[channel]):
        module = dependency.target.module
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            inner = isinstance(module, nn.Conv2d) and "in_channels" in dependency.handler.__name__
            found[names[module], int(inner)].update(int(i) for i in positions)
    return {where: tuple(sorted(p)) for where, p in found.items()}


@pytest.mark.parametrize("family", ["yolov8", "yolov5"])
def test_torch_pruning_finds_the_same_members(family: str) -> None:
    import torch_pruning as tp

    found = case(family)
    module = copy.deepcopy(found.module).requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(module, image(), forward_fn=raw_layers, verbose=False)
    layers = dict(module.named_modules())
    names = {m: n for n, m in layers.items()}
    split = {label for equal in found.network.equal for part in equal.parts for label in part}
    # Torch-Pruning loses its place in a concat of a split's parts: channel 10 of the third is channel 10 of all to it
    split |= {label for m in found.network.dims if split.intersection(m.labels) for label in m.labels}
    compared = 0
    for conv in found.network.convs:
        labels = [label for label in conv.writes if label in found.groups.owner and label not in split]
        if len(labels) != len(conv.writes):
            continue
        channel = len(labels) // 3
        layer = layers[conv.parameter.removesuffix(".weight")]
        assert ours(found.groups, labels[channel]) == theirs(graph, names, layer, channel), conv.parameter
        compared += 1
    assert compared > 35


@pytest.mark.parametrize("family", ["yolo11", "yolo12"])
def test_one_channel_an_attention_head_is_enough(family: str) -> None:
    found = case(family)
    least = {g.name: 1 if ".attn." in g.name else g.count for g in found.groups.groups}
    assert sum(n == 1 for n in least.values()) > 0
    module = pruned(found.module, plan_with(found, least, orders(plan_for(found))))
    again = case_of(module)
    assert again.costs(again.groups.full()) == found.costs(least)
    assert [t.shape for t in raw(module, image())] == [t.shape for t in raw(found.module, image())]
    plan = plan_for(again, Choice(0.3, 2))
    assert raw(pruned(module, plan), image())
