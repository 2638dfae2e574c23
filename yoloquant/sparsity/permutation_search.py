"""Search for an order of input channels whose 2:4 pruning loses little magnitude.

After Pool and Yu, "Channel Permutations for N:M Sparsity" (NeurIPS 2021): swap two channels between groups of four as
long as that helps, then a bounded number of times make a random swap and go on from there, to escape local optima.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from .two_four import GROUP

_BLOCK = 1 << 24  # numbers that are compared at once
_GAIN = 1e-6  # relative; smaller gains are rounding


@dataclass(frozen=True)
class Search:
    """Bounds of the search.

    Attributes:
        swaps: Swaps at most, for one order.
        escapes: Random swaps to escape local optima.
        rows: Rows that are looked at; of a larger matrix every n-th.
        seed: Of the random swaps.
    """

    swaps: int = 1000
    escapes: int = 10
    rows: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("swaps", 0), ("escapes", 0), ("rows", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"{name}={getattr(self, name)} is not supported; it must be {low} or more")


def retained(matrix: Tensor) -> float:
    """Sum of the best two of every four magnitudes of each row.

    Args:
        matrix: (rows, columns), columns a multiple of 4.

    Returns:
        The sum.
    """
    return float(matrix.abs().double().reshape(matrix.shape[0], -1, GROUP).topk(2, dim=-1).values.sum())


def best_order(matrix: Tensor, search: Search | None = None) -> Tensor:
    """Find an order of columns that keeps much magnitude.

    Args:
        matrix: (rows, columns), columns a multiple of 4; only magnitudes count.
        search: Bounds.

    Returns:
        Column indices, (columns,); never worse than the order as it is.
    """
    search = search or Search()
    same = torch.arange(matrix.shape[1])
    if matrix.shape[1] <= GROUP or matrix.numel() == 0:
        return same
    step = max(-(-matrix.shape[0] // search.rows), 1)
    # columns in rows, since swaps and comparisons go column by column
    finder = _Finder(matrix.detach().abs().float().cpu()[::step].T.contiguous())
    order = finder.run(search)
    # the search saw every n-th row: the whole matrix decides
    return order if retained(matrix[:, order.to(matrix.device)]) > retained(matrix) else same


class _Finder:
    """One search.

    ``put[u, v]`` is what the group of place u keeps if the column of place v stands there instead of its own. With it
    the gain of every swap is known at once, and a swap changes eight of its rows and two of its columns.
    """

    def __init__(self, columns: Tensor) -> None:
        self.columns = columns  # (places, rows)
        self.order = torch.arange(len(columns))
        self.group = self.order // GROUP
        self.put = torch.empty(len(columns), len(columns))
        self._update(range(len(columns) // GROUP))

    def run(self, search: Search) -> Tensor:
        self._climb(search.swaps)
        best, kept = self.order.clone(), self.kept()
        generator = torch.Generator().manual_seed(search.seed)
        for _ in range(search.escapes):
            self._swap(*self._random(generator))
            self._climb(search.swaps)
            if self.kept() > kept * (1 + _GAIN):
                best, kept = self.order.clone(), self.kept()
        return best

    def kept(self) -> float:
        """What all groups keep."""
        return float(self.put.diagonal()[::GROUP].double().sum())

    def _climb(self, swaps: int) -> None:
        for _ in range(swaps):
            own = self.put.diagonal()
            gain = self.put + self.put.T - own[:, None] - own[None, :]
            # within a group of four the order does not matter
            gain[self.group[:, None] == self.group[None, :]] = 0.0
            place = int(gain.argmax())
            u, v = divmod(place, len(own))
            if float(gain[u, v]) <= _GAIN * max(float(own[u] + own[v]), 1e-30):
                return
            self._swap(u, v)

    def _random(self, generator: torch.Generator) -> tuple[int, int]:
        groups = torch.randperm(len(self.order) // GROUP, generator=generator)[:2] * GROUP
        u, v = (groups + torch.randint(GROUP, (2,), generator=generator)).tolist()
        return int(u), int(v)

    def _swap(self, u: int, v: int) -> None:
        pair, back = [u, v], [v, u]
        self.columns[pair] = self.columns[back]
        self.order[pair] = self.order[back]
        # columns have only changed places; what their new groups keep is computed anew
        self.put[:, pair] = self.put[:, back]
        self._update((u // GROUP, v // GROUP))

    def _update(self, groups: range | tuple[int, ...]) -> None:
        for group in groups:
            start = group * GROUP
            for place in range(start, start + GROUP):
                others = [p for p in range(start, start + GROUP) if p != place]
                top = self.columns[others].topk(2, dim=0).values
                self.put[place] = top[0].sum() + self._best_with(top[1])

    def _best_with(self, second: Tensor) -> Tensor:
        """Sum over rows of the larger of ``second`` and each column: with the top value it is the best two of four."""
        # in blocks: every column beside a long second one would be gigabytes for wide layers
        count = max(_BLOCK // max(len(second), 1), 1)
        parts = (self.columns[i : i + count] for i in range(0, len(self.columns), count))
        return torch.cat([torch.maximum(part, second).sum(dim=1) for part in parts])
