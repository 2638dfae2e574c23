"""Fake quantization of float32 tensors on a CPU by compiled loops: the same functions as in ``fake_quant_eager``.

Importing this needs numba. The loops run on as many threads as torch's own operations.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import fake_quant_numba as loops
from .fake_quant_chunked import IntegerGrid, Pair, Wanted
from .fake_quant_eager import MAX_LEVELS

_MIN_BLOCKS = 8  # of a thread: waking one takes as long as some blocks
_SHORT = 8  # elements; shorter rows are not worth walking
_pools: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a child has none of its parent's threads

Table = npt.NDArray[np.float32]  # (6, levels + 1), see fake_quant_numba.tabulate
_NO_TABLES = np.empty((0, 1), np.float32)


def serves(x: Tensor, grid: IntegerGrid | None) -> bool:
    """Whether the compiled loops can do a tensor whose first grid is ``grid``."""
    if grid is None or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    # uint16 indices and exact rounding hold up to here (``loops.LIMIT``)
    return grid.qmax - grid.qmin < MAX_LEVELS and max(-grid.qmin, grid.qmax) < loops.LIMIT


def quantize(x: Tensor, pair: Pair, grid: IntegerGrid) -> Tensor:
    """``x`` on its grid."""
    (x, out), layout = _aligned(x)
    _share(loops.quantize, layout, _flat(x), _flat(out), layout, _steps(pair, grid))
    return out


def quantize_gradients(x: Tensor, grad: Tensor, pair: Pair, grid: IntegerGrid, wanted: Wanted) -> list[Tensor | None]:
    """Gradients of the tensor, the scale and the zero_point; None where none is wanted."""
    found, sums = _gradients(x, grad, (pair, grid), _NO_TABLES, wanted[1])
    return [found, _like(sums[0], pair[0], wanted[0]), _like(sums[1] * -float(pair[0]), pair[1], wanted[1])]


def table(grids: Sequence[IntegerGrid | None], pairs: Sequence[Pair | None]) -> Table:
    """Everything behind the pre-activation of a quantized SiLU, for each of its values and for NaN."""
    pre, pair = grids[0], pairs[0]
    assert pre is not None and pair is not None
    # one more than there are grid points: the last place is for NaN, as in ``fake_quant_eager._Chain.table``
    levels = (np.arange(pre.qmin, pre.qmax + 2, dtype=np.float32) - np.float32(pair[1])) * np.float32(pair[0])
    levels[-1] = np.nan
    # torch's sigmoid and not numba's: the two differ in the last bit, and results must be those of the eager kernels
    sigmoid = torch.from_numpy(levels).sigmoid().numpy()
    tables = np.empty((6, len(levels)), np.float32)
    absent = (np.float32(1),) * 4
    unit, product = (
        absent if g is None or p is None else _steps(p, g) for g, p in zip(grids[1:], pairs[1:], strict=True)
    )
    loops.tabulate(levels, sigmoid, tables, unit, grids[1] is not None, product, grids[2] is not None)
    return tables


def gate(x: Tensor, grids: Sequence[IntegerGrid | None], pairs: Sequence[Pair | None], tables: Table) -> Tensor:
    """A quantized SiLU."""
    (x, out), layout = _aligned(x)
    assert grids[0] is not None and pairs[0] is not None
    _share(loops.gate, layout, _flat(x), _flat(out), tables[0], layout, _steps(pairs[0], grids[0]))
    return out


def gate_gradients(
    x: Tensor,
    grad: Tensor,
    grids: Sequence[IntegerGrid | None],
    pairs: Sequence[Pair | None],
    wanted: Sequence[Wanted],
    tables: Table,
) -> list[Tensor | None]:
    """Gradients of the tensor, then of scale and zero_point of each range; None where none is wanted."""
    pre, pair = grids[0], pairs[0]
    assert pre is not None and pair is not None
    later = [(which, k) for which in (1, 2) for k in (0, 1) if wanted[which][k]]
    # frozen ranges have no gradient, and each table costs a pass
    chosen = np.ascontiguousarray(tables[[1, *(2 * which + k for which, k in later)]])
    found, sums = _gradients(x, grad, (pair, pre), chosen, wanted[0][1])
    result: list[Tensor | None] = [found, *[None] * 6]
    result[1], result[2] = (
        _like(sums[0], pair[0], wanted[0][0]),
        _like(sums[1] * -float(pair[0]), pair[1], wanted[0][1]),
    )
    for column, (which, k) in enumerate(later):
        parameter = pairs[which]
        assert parameter is not None
        result[1 + 2 * which + k] = _like(sums[2 + column], parameter[k], True)
    return result


def _gradients(
    x: Tensor, grad: Tensor, first: tuple[Pair, IntegerGrid], tables: Table, zero: bool
) -> tuple[Tensor, npt.NDArray[np.float64]]:
    (x, out, grad), layout = _aligned(x, grad)
    # a row for each block, added up in order afterwards: sums do not depend on how many threads there are
    sums = np.empty((_blocks(layout), 1 + max(len(tables), 1)), np.float64)
    _share(loops.gradients, layout, _flat(x), _flat(grad), _flat(out), tables, sums, layout, _steps(*first), zero)
    return out, sums.sum(0)


# on the CPU alone, where everything of this file is
def _like(value: Any, parameter: Tensor, wanted: bool) -> Tensor | None:
    return torch.full(parameter.shape, float(value), dtype=parameter.dtype) if wanted else None


def _steps(pair: Pair, grid: IntegerGrid) -> tuple[np.float32, ...]:
    # float32 arithmetic: in Python's float64 the inverse and the limits would round otherwise than torch's kernels
    scale, zero = np.float32(pair[0].item()), np.float32(pair[1].item())
    return np.float32(1) / scale, scale, np.float32(grid.qmin) - zero, np.float32(grid.qmax) - zero


# -- memory


def _aligned(x: Tensor, *others: Tensor) -> tuple[list[Tensor], tuple[int, ...]]:
    """Tensors that can be walked together, with a new one for the result, and how: see ``_rows``.

    Parts of a concat or of a split have gaps; they are only copied if there is no walking over them.
    """
    tensors = [x, torch.empty_like(x), *others]
    layout = _rows(tensors)
    if layout is None:
        x = x if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()
        out = torch.empty_like(x)
        tensors = [x, out, *(o if o.stride() == x.stride() else torch.empty_like(x).copy_(o) for o in others)]
        layout = _rows(tensors)
        assert layout is not None
    return tensors, layout


def _rows(tensors: Sequence[Tensor]) -> tuple[int, ...] | None:
    """How to walk tensors of one shape together: rows without gaps, and a stride from row to row in each.

    Returns:
        Number of elements, elements of a row, and the strides of the first, of the last and of the second tensor; None
        if they are not that regular.
    """
    first = tensors[0]
    shape, size = first.shape, first.numel()
    strides = [t.stride() for t in tensors]
    if first.is_contiguous() and all(t.is_contiguous() for t in tensors):
        return size, max(size, 1), 0, 0, 0
    # outermost first; an axis of one element has a stride that says nothing
    axes = sorted((a for a in range(len(shape)) if shape[a] > 1), key=lambda a: -strides[0][a])
    inner, rows = 1, 1
    while axes and all(s[axes[-1]] == inner for s in strides):
        inner *= shape[axes.pop()]
    steps = [s[axes[-1]] if axes else 0 for s in strides]
    while axes and all(s[axes[-1]] == step * rows for s, step in zip(strides, steps, strict=True)):
        rows *= shape[axes.pop()]
    if axes or (rows > 1 and (inner < _SHORT or min(steps) < inner)):
        return None  # too irregular, hardly worth walking, or expanded
    return size, inner, steps[0], steps[-1], steps[1]


def _flat(x: Tensor) -> npt.NDArray[np.float32]:
    """Every element from the first to the last, gaps included."""
    length = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    return x.detach().as_strided((length,), (1,), x.storage_offset()).numpy()


# -- threads


def _blocks(layout: tuple[int, ...]) -> int:
    return -(-layout[0] // loops.BLOCK)


def _share(loop: Callable[..., None], layout: tuple[int, ...], *arguments: Any) -> None:
    """Run a loop over all blocks, on several threads where that pays."""
    blocks = _blocks(layout)
    threads = max(min(_threads(), blocks // _MIN_BLOCKS), 1)
    # even parts; the calling thread takes the first, instead of waiting for the others
    own, *others = itertools.pairwise(blocks * i // threads for i in range(threads + 1))
    waiting = [_pool(threads - 1).submit(loop, *arguments, *part) for part in others]
    loop(*arguments, *own)
    for w in waiting:
        # raises here what a thread raised
        w.result()


def _threads() -> int:
    return torch.get_num_threads()


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads beside the calling one; they are kept."""
    # all that torch may use, so that small and large tensors share one pool
    size = max(threads, _threads() - 1)
    pool = _pools.get(size)
    if pool is None:
        pool = _pools[size] = ThreadPoolExecutor(size, thread_name_prefix="yoloquant")
    return pool
