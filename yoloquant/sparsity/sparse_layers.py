"""Which weights of a model may be sparse, and why the others stay dense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ..errors import PruneError

_BRANCHED = {"RepConv": ("conv1", "conv2"), "RepVGGDW": ("conv1",), "Conv2": ("cv2",)}  # children until they are merged


@dataclass(frozen=True)
class Skipped:
    """A layer that stays dense.

    Attributes:
        name: Its parameter.
        reason: Why.
    """

    name: str
    reason: str


def sparse_layers(module: nn.Module, ignored: tuple[str, ...] = ()) -> tuple[dict[str, nn.Parameter], list[Skipped]]:
    """Sort the weights of convolutions and linear layers into those that may be sparse and those that stay dense.

    The first convolution and the head's last ones decide about accuracy and hold few weights; the DFL's weight is a
    constant. Branches of re-parametrizable blocks become one weight later, which would fill zeros again.

    Args:
        module: A live Ultralytics model.
        ignored: Patterns of layers or parameters that stay dense too.

    Returns:
        Parameters by name, and the others with the reason.

    Raises:
        PruneError: A pattern matches nothing, or no layer is left.
    """
    layers: dict[str, nn.Parameter] = {}
    skipped: list[Skipped] = []
    unmatched = set(ignored)
    for index, path in enumerate(_weighted(module)):
        name = f"{path}.weight"
        matched = {p for p in ignored if fnmatchcase(path, p) or fnmatchcase(name, p)}
        unmatched -= matched
        reason = f"ignored: {min(matched)}" if matched else _reason(module, path, first=index == 0)
        if reason:
            skipped.append(Skipped(name, reason))
        else:
            layers[name] = module.get_parameter(name)
    # A pattern that matches nothing is a typing error, and the layer that was meant would lose weights.
    if unmatched:
        known = ", ".join([n.removesuffix(".weight") for n in layers][:6])
        raise PruneError(
            f"ignored pattern '{min(unmatched)}' matches no convolution or linear layer; there are {known}"
        )
    if not layers:
        raise PruneError(f"none of the model's {len(skipped)} convolutions and linear layers may be sparse")
    return layers, skipped


def _weighted(module: nn.Module) -> Iterator[str]:
    for path, layer in module.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            yield path


def _reason(module: nn.Module, path: str, *, first: bool) -> str:
    """Why a layer stays dense; empty if it need not."""
    if first:
        return "first convolution"
    owner = path.rpartition(".")[0]
    parent = module.get_submodule(owner)
    if type(parent).__name__ == "DFL":
        return "DFL: a constant"
    if _in_branch(module, path):
        return "branch of a re-parametrizable block; merge the branches first"
    layers: Any = getattr(module, "model", None)
    if isinstance(layers, nn.Sequential) and path.startswith(f"model.{len(layers) - 1}."):
        # Ultralytics wraps every inner convolution into a `Conv`; the head's last ones stand bare.
        wrapped = getattr(parent, "conv", None) is module.get_submodule(path)
        if not wrapped:
            return "last layer of the head"
    return ""


def _in_branch(module: nn.Module, path: str) -> bool:
    parts = path.split(".")
    for end in range(1, len(parts)):
        block = module.get_submodule(".".join(parts[:end]))
        if any(getattr(block, child, None) is not None for child in _BRANCHED.get(type(block).__name__, ())):
            return True
    return False
