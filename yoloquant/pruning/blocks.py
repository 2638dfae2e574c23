"""Taking out whole residual blocks that hardly change what passes through them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import PruneError
from .cost import CostModel
from .groups import find_groups
from .metadata import RECORD, mark_yaml
from .trace_channels import trace_channels


@dataclass(frozen=True)
class Block:
    """A residual block that can go.

    Attributes:
        path: Of the block.
        change: How much it changes its input: ``|f(x) - x| / |x|``, averaged over images.
    """

    path: str
    change: float


def residual_blocks(module: nn.Module) -> Iterator[str]:
    """Paths of the blocks that add to their input and can be left out without changing a shape.

    They sit in a ``Sequential``, or in the ``m`` of a CSP block that joins its input with the result of each.
    """
    for path, parent in module.named_modules():
        joined = isinstance(parent, nn.ModuleList) and path.endswith(".m") and _joins(module, path)
        if isinstance(parent, nn.Sequential) or joined:
            for name, child in parent.named_children():
                if _is_residual(child):
                    yield f"{path}.{name}"


def _is_residual(block: nn.Module) -> bool:
    adds = getattr(block, "add", None)
    return adds is True or (adds is None and type(block).__name__ == "ABlock")  # whose sums are unconditional


def _joins(module: nn.Module, path: str) -> bool:
    """Whether a list belongs to a block whose ``cv2`` reads two halves of ``cv1`` and every result."""
    owner: Any = module.get_submodule(path.rpartition(".")[0])
    width = getattr(owner, "c", None)
    readers = getattr(getattr(owner, "cv2", None), "conv", None)
    return isinstance(width, int) and readers is not None and readers.in_channels == width * (2 + len(owner.m))


def rank(module: Any, images: Iterable[np.ndarray]) -> tuple[Block, ...]:
    """Every residual block, those that change least first.

    Args:
        module: The live model.
        images: float32 (1, channels, height, width), 0 to 1.
    """
    paths = list(residual_blocks(module))
    changes: dict[str, list[float]] = {p: [] for p in paths}

    def watch(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
            changes[path].append(float((result - args[0]).norm() / args[0].norm().clamp(min=1e-12)))

        return hook

    handles = [module.get_submodule(p).register_forward_hook(watch(p)) for p in paths]
    try:
        with torch.inference_mode():
            for image in images:
                module.eval()(torch.from_numpy(image))
    finally:
        for handle in handles:
            handle.remove()
    found = (Block(p, float(np.mean(changes[p]))) for p in paths if changes[p])
    return tuple(sorted(found, key=lambda b: b.change))


def without_blocks(
    module: nn.Module, count: int, images: Iterable[np.ndarray], imgsz: tuple[int, int], channels: int = 3
) -> tuple[nn.Module, tuple[Block, ...]]:
    """A copy of a model without the blocks that change least.

    A block that goes becomes the identity. Where its result was joined with its input, the layer that reads both reads
    the input once, with the sum of the two weights: exactly the model with the block skipped.

    Args:
        module: A live, unfused YOLO.
        count: How many blocks go.
        images: What the change is measured on, as for ``rank``.
        imgsz: Input height and width in pixels, for the record of what was saved.
        channels: Input channels.

    Returns:
        The smaller model, and what went.

    Raises:
        PruneError: It has fewer blocks.
    """
    # a copy: rank sets evaluation mode
    ranked = rank(copy.deepcopy(module), images)
    if count > len(ranked):
        raise PruneError(
            f"blocks={count} cannot be taken out: the model has {len(ranked)} residual blocks; ask for those"
        )
    removed = ranked[:count]
    result = copy.deepcopy(module)
    for path in sorted((b.path for b in removed), key=_position, reverse=True):  # the last first: indices stay valid
        _take_out(result, path)
    before, after = (CostModel(find_groups(trace_channels(m, imgsz, channels))) for m in (module, result))
    # traced again and not computed: it is also the proof that the smaller model still can be followed
    costs = before(before.groups.full()), after(after.groups.full())
    record = {
        "blocks": [b.path for b in removed],
        "macs": [c.macs for c in costs],
        "parameters": [c.parameters for c in costs],
    }
    setattr(result, RECORD, [*getattr(module, RECORD, []), record])
    mark_yaml(result)
    return result, removed


def _position(path: str) -> list[int]:
    return [int(part) for part in path.split(".") if part.isdigit()]


def _take_out(module: nn.Module, path: str) -> None:
    holder_path, _, index = path.rpartition(".")
    holder: Any = module.get_submodule(holder_path)
    if isinstance(holder, nn.ModuleList):
        owner: Any = module.get_submodule(holder_path.rpartition(".")[0])
        _merge_readers(owner.cv2.conv, owner.c, int(index) + 2)
    # later blocks move up; Ultralytics' forward runs over the list, whatever its length
    del holder[int(index)]


def _merge_readers(conv: nn.Conv2d, width: int, piece: int) -> None:
    """Let a convolution read one piece of its input with the weights of two: that piece and the one before it."""
    weight = conv.weight.detach()
    start = piece * width
    merged = weight.clone()
    merged[:, start - width : start] += weight[:, start : start + width]
    kept = torch.cat([merged[:, :start], merged[:, start + width :]], dim=1)
    conv.weight = nn.Parameter(kept, requires_grad=conv.weight.requires_grad)
    conv.in_channels = kept.shape[1]
