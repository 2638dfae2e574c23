"""Arrays of channel labels, sets of labels that are one channel, and what a traced node says of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

Labels = npt.NDArray[np.int64]  # of the shape of the tensor that they stand for; 0 is no channel


class Union:
    """Disjoint sets of labels."""

    def __init__(self) -> None:
        # label 0 is taken: it means no channel, for instance a pixel or a number
        self._parent: list[int] = [0]

    def fresh(self, count: int) -> Labels:
        """New labels, one after another."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def find(self, label: int) -> int:
        """The label that stands for a set."""
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        # path compression: networks have thousands of labels, joined in long chains
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def join(self, a: int, b: int) -> None:
        """Make two labels one; 0 is no channel and joins nothing."""
        ra, rb = self.find(a), self.find(b)
        if ra and rb and ra != rb:
            # the smaller one stands for both, so results do not depend on the order of the joins
            self._parent[max(ra, rb)] = min(ra, rb)

    def resolve(self, labels: Iterable[int]) -> tuple[int, ...]:
        """The labels that stand for these."""
        return tuple(self.find(int(v)) for v in labels)


def spread(vector: Labels, shape: Sequence[int], axis: int) -> Labels:
    """Labels along one axis, the same everywhere else."""
    axis %= len(shape)
    view = vector.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    # a view without memory of its own: feature maps of labels would be as large as the activations
    return np.broadcast_to(view, tuple(shape))


def varies_along(value: Labels, axis: int) -> bool:
    """Whether labels differ along an axis."""
    if value.shape[axis] < 2:
        return False
    first = np.take(value, [0], axis=axis)
    return bool((value != first).any())


def split_dimension(node: fx.Node) -> int:
    """The axis that a split works on."""
    dim: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    return int(dim)


def node_shape(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of a node's only result; None for several."""
    value = node.meta.get("val")
    return tuple(int(s) for s in value.shape) if isinstance(value, torch.Tensor) else None


def module_path(node: fx.Node) -> str:
    """Path of the innermost module whose code a node is."""
    path = ""
    for name, _ in (node.meta.get("nn_module_stack") or {}).values():
        path = name or path
    return path


def leaves(value: Any) -> list[Any]:
    """Everything in nested sequences and mappings, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    return [x for v in value for x in leaves(v)] if isinstance(value, (list, tuple)) else [value]


def arrays(value: Any) -> list[Labels]:
    """The label arrays in a nested value."""
    return [v for v in leaves(value) if isinstance(v, np.ndarray)]


def map_tensors(value: Any, function: Callable[[Any], Any]) -> Any:
    """A nested value with a function of each tensor in its place."""
    if isinstance(value, (list, tuple)):
        return [map_tensors(v, function) for v in value]
    return function(value) if isinstance(value, torch.Tensor) else None
