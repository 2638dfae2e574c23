"""Attention that an Edge TPU can run: fixed convolutions fitted to what the attention computes.

The self-attention of YOLOv10, YOLO11 and YOLO26 multiplies computed tensors with each other and normalises them with a
softmax; the Edge TPU has no operator for either, so its partition ends there, in the middle of the network. Per pixel
and channel the block returns ``project(mix(value) + position(value))``. All of it but the mixing is linear in its
input. The mixing is a weighted mean of the value over the image, with weights that depend on the image. It is replaced
by its best linear prediction, in the least-squares sense over calibration images, from the means of the value over
squares of several sizes around the pixel. The result is three plain convolutions.

This changes the float model, so it is never done unasked, and what it costs must be measured
(``tools/check_edgetpu.py``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...errors import CalibrationError, ModelError
from .edgetpu_options import REWRITTEN

SIZES = (1, 3, 7, 13)  # side lengths of the squares; smaller sets predict less (tools/check_edgetpu.py)
RIDGE = 1e-4  # of the predictors' mean square; small predictors shrink most, which 8-bit rounding would drown anyway


@dataclass(frozen=True)
class Rewritten:
    """A model whose attention is replaced.

    Attributes:
        module: The changed copy, an ordinary Ultralytics model.
        explained: Share of the mixing's variance that the convolutions reproduce on the images they were fitted to, by
            path of the block.
        images: Number of those images.
    """

    module: nn.Module
    explained: dict[str, float]
    images: int

    def summary(self) -> tuple[str, ...]:
        """What a person should know."""
        return tuple(_sentence(path, share, self.images) for path, share in self.explained.items())


def _sentence(path: str, share: float, images: int) -> str:
    return (
        f"the attention at {path} was replaced by convolutions fitted to {images} images, on which they reproduce "
        f"{share:.1%} of its variance; compare its accuracy with the original model's"
    )


def attention_blocks(module: nn.Module) -> dict[str, nn.Module]:
    """Self-attention blocks of a model by path.

    Raises:
        ModelError: The model has attention of a kind that cannot be replaced.
    """
    blocks = {}
    for path, block in module.named_modules():
        if not all(hasattr(block, part) for part in ("qkv", "proj", "pe", "num_heads", "head_dim")):
            continue
        if not hasattr(block, "key_dim"):
            raise ModelError(
                f"the attention at {path} is of class {type(block).__name__}, which cannot be replaced; allowed is "
                "that of YOLOv10, YOLO11 and YOLO26. YOLOv8 has none"
            )
        blocks[path] = block
    return blocks


def replace_attention(module: nn.Module, images: Iterable[np.ndarray]) -> Rewritten:
    """Replace every self-attention block by convolutions fitted to it.

    Args:
        module: A float Ultralytics model in eval mode; left untouched.
        images: float32 (1, channels, height, width) calibration images, 0 to 1, at the size of the export: what the
            attention does depends on the size.

    Returns:
        The changed copy; equal images give the same.

    Raises:
        ModelError: There is no attention, or it is of a kind that cannot be replaced.
        CalibrationError: There are no images.
    """
    changed = copy.deepcopy(module).cpu().float().eval()
    blocks = attention_blocks(changed)
    if not blocks:
        raise ModelError("the model has no self-attention, so there is nothing to replace: export it as it is")
    fits = {path: _Fit(block) for path, block in blocks.items()}
    # all blocks on the unchanged model: fitted one after the other, later ones would learn from the errors of earlier
    # ones
    count = _observe(changed, fits, images)
    explained = {}
    for path, fit in fits.items():
        weights, explained[path] = fit.solve()
        parent, _, name = path.rpartition(".")
        setattr(changed.get_submodule(parent), name, _convolutions(fit.linear, weights))
    result = Rewritten(changed, explained, count)
    # it stays with the model, so that every export made of it says so
    setattr(changed, REWRITTEN, [*getattr(changed, REWRITTEN, []), *result.summary()])
    return result


def _observe(module: nn.Module, fits: dict[str, _Fit], images: Iterable[np.ndarray]) -> int:
    """Run the images through the model, each block's input through its fit."""
    handles = [fit.block.register_forward_pre_hook(fit.hook) for fit in fits.values()]
    count = 0
    try:
        with torch.no_grad():
            for image in images:
                module(torch.from_numpy(np.ascontiguousarray(image)))
                count += 1
    finally:
        for handle in handles:
            handle.remove()
    if not count:
        raise CalibrationError("no image was given to fit the replacement of attention to; give calibration images")
    return count


class _Linear(NamedTuple):
    """The linear parts of a block, batch normalisation folded in."""

    value: nn.Conv2d
    position: nn.Conv2d
    project: nn.Conv2d

    @classmethod
    def of(cls, block: Any) -> _Linear:
        """Read them from a block; the value is the last part of each head's share of ``qkv``."""
        qkv = _folded(block.qkv)
        share = 2 * block.key_dim + block.head_dim
        rows = torch.arange(share * block.num_heads).view(block.num_heads, share)[:, 2 * block.key_dim :].reshape(-1)
        value = _conv(qkv.weight[rows], _bias(qkv)[rows])
        return cls(value, _folded(block.pe), _folded(block.proj))


def _folded(layer: Any) -> nn.Conv2d:
    """The convolution of an Ultralytics ``Conv`` with its batch normalisation."""
    norm = getattr(layer, "bn", None)
    conv: nn.Conv2d = layer.conv
    return fuse_conv_bn_eval(conv, norm) if isinstance(norm, nn.BatchNorm2d) else conv


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.bias if conv.bias is not None else torch.zeros(conv.out_channels)


def _conv(weight: Tensor, bias: Tensor, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size of the map."""
    outputs, inputs, size = weight.shape[0], weight.shape[1] * groups, weight.shape[-1]
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups)
    conv.weight.data, conv.bias.data = weight.detach().clone(), bias.detach().clone()  # type: ignore[union-attr]
    return conv


def _means(value: Tensor) -> Tensor:
    """The predictors, (positions, sizes * channels + 1): means over squares (outside of the map is 0), and 1."""
    # What lies outside counts as 0 in these means, as it does in the convolution that takes their place.
    maps = [functional.avg_pool2d(value, size, 1, size // 2) for size in SIZES]
    # float64: a Gram matrix of many nearly equal predictors is badly conditioned
    flat = torch.cat(maps, 1).flatten(2)[0].t().double()
    return torch.cat([flat, torch.ones(len(flat), 1, dtype=torch.float64)], 1)


class _Fit:
    """Normal equations of one block's mixing, summed over images."""

    def __init__(self, block: nn.Module) -> None:
        self.block, self.linear = block, _Linear.of(block)
        channels = self.linear.value.out_channels
        size = len(SIZES) * channels + 1
        self._gram = torch.zeros(size, size, dtype=torch.float64)
        self._cross = torch.zeros(size, channels, dtype=torch.float64)
        self._square = torch.zeros(channels, dtype=torch.float64)

    def hook(self, block: Any, arguments: tuple[Tensor, ...]) -> None:
        """Add one image's positions."""
        for image in arguments[0]:
            value, mixed = self._mix(block, image[None])
            predictors, target = _means(value), mixed.flatten(2)[0].t().double()
            # sums only: the equations do not grow with the images, keeping every position would
            self._gram += predictors.t() @ predictors
            self._cross += predictors.t() @ target
            self._square += target.square().sum(0)

    def _mix(self, block: Any, image: Tensor) -> tuple[Tensor, Tensor]:
        """The block's value and what its attention makes of it, as in Ultralytics' ``Attention.forward``."""
        height, width = image.shape[2:]
        sizes = [block.key_dim, block.key_dim, block.head_dim]
        joint: Tensor = block.qkv(image).view(1, block.num_heads, sum(sizes), -1)
        query, key, value = torch.split_with_sizes(joint, sizes, 2)
        weights = (query.transpose(-2, -1) @ key * block.scale).softmax(-1)
        mixed = value @ weights.transpose(-2, -1)
        return value.reshape(1, -1, height, width), mixed.reshape(1, -1, height, width)

    def solve(self) -> tuple[Tensor, float]:
        """Weights (predictors, channels), and the share of variance that they explain."""
        ridge = RIDGE * self._gram.diagonal().mean()
        weights = torch.linalg.solve(self._gram + ridge * torch.eye(len(self._gram)), self._cross)
        # The sum of squared errors, expanded into the sums that were kept.
        rest = self._square - 2 * (weights * self._cross).sum(0) + (weights * (self._gram @ weights)).sum(0)
        # The last predictor is 1, so its products with the target are the target's sums.
        variance = self._square - self._cross[-1].square() / self._gram[-1, -1]
        return weights.float(), float(1 - rest.sum() / variance.sum().clamp_min(1e-12))


def _convolutions(linear: _Linear, weights: Tensor) -> nn.Sequential:
    """Value (once for each branch), then one square for each branch, then everything that mixes channels."""
    channels, largest = linear.value.out_channels, max(SIZES)
    branches = len(SIZES) + 1
    # repeated instead of split: a depthwise convolution reads one channel for each of its own
    value = _conv(linear.value.weight.repeat(branches, 1, 1, 1), _bias(linear.value).repeat(branches))
    squares = [_centred(torch.full((channels, 1, s, s), 1 / (s * s)), largest) for s in SIZES]
    # All kernels at one size, or they would not be one depthwise convolution.
    spatial = torch.cat([_centred(linear.position.weight, largest), *squares])
    offset = torch.cat([_bias(linear.position), torch.zeros(len(SIZES) * channels)])
    project = linear.project.weight[:, :, 0, 0]
    # (branches * channels, channels), transposed: the position branch goes through as it is.
    mixing = torch.cat([torch.eye(channels), *weights[:-1].view(-1, channels, channels)]).t()
    # Both are linear without anything between, so the device gets a single convolution.
    joint = (project @ mixing)[:, :, None, None]
    constant = project @ weights[-1] + _bias(linear.project)
    return nn.Sequential(value, _conv(spatial, offset, groups=branches * channels), _conv(joint, constant))


def _centred(kernel: Tensor, size: int) -> Tensor:
    """A kernel in the middle of a larger one of zeros."""
    margin = (size - kernel.shape[-1]) // 2
    return functional.pad(kernel, (margin,) * 4)
