"""Loops over float32 elements that numba compiles: one pass over memory where separate operations need many.

Nothing here knows tensors or threads; ``fake_quant_fused`` does. Every loop releases Python's lock, and is compiled
when this module is imported, or read from numba's cache. Work comes in blocks of ``BLOCK`` elements, whose scratch
memory stays in the cache, and each block has sums of its own, so that results do not depend on how many threads share
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import boolean, float32, float64, int64, uint16, void

if numba.config.DISABLE_JIT:
    raise ImportError("numba's compiler is switched off (NUMBA_DISABLE_JIT)")

# elements, 32 KB of float32: the few scratch rows of a block stay in the cache
BLOCK = 8192
LIMIT = 1 << 20  # of a grid's steps; rounding below is exact up to twice that
_F, _U, _T = float32[::1], uint16[::1], float32[:, ::1]
_SUMS = float64[:, ::1]
_LAYOUT = numba.types.UniTuple(int64, 5)
_GRID = numba.types.UniTuple(float32, 4)  # of a grid: inverse of the scale, scale, lowest and highest step from zero

# Adding and taking away 1.5 * 2**23 rounds a float32 below 2**22 to the nearest integer, halves to even.
_MAGIC, _ONE, _ZERO = np.float32(12582912.0), np.float32(1), np.float32(0)


def _compiled(signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            # "numpy": division by a zero scale gives infinity as torch does, where Python's model would raise and not
            # vectorise
            return numba.njit(signature, nogil=True, cache=True, error_model="numpy", **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder that a cache could be written to
            return numba.njit(signature, nogil=True, error_model="numpy", **options)(function)  # type: ignore[no-any-return]

    return compile_


@_compiled(void(_F, _F, _GRID))
def _round(x: Any, out: Any, grid: Any) -> None:
    inverse, scale, low, high = grid
    for i in range(x.shape[0]):
        p = x[i] * inverse
        # clamped before rounding, as low and high are whole: the same value, and _MAGIC stays within its limit
        p = low if p < low else p  # NaN stays
        p = high if p > high else p
        out[i] = ((p + _MAGIC) - _MAGIC) * scale


@_compiled(void(_F, _U, _GRID, uint16))
def _indices(x: Any, index: Any, grid: Any, nan: Any) -> None:
    inverse, _, low, high = grid
    for i in range(x.shape[0]):
        p = x[i] * inverse
        c = p if p > low else low
        c = c if c < high else high
        k = np.uint16(np.int32(((c + _MAGIC) - _MAGIC) - low))
        index[i] = k if p == p else nan


@_compiled(void(_F, _U, _F))
def _take(table: Any, index: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        out[i] = table[index[i]]


@_compiled(void(_F, _F))
def _multiply(by: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        out[i] *= by[i]


# float64, since a block adds up thousands of products; "reassoc" lets the compiler add several lanes at once
@_compiled(float64(_F, _F), fastmath={"reassoc"})
def _dot(a: Any, b: Any) -> Any:
    total = 0.0
    for i in range(a.shape[0]):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@_compiled(float64(_F, _F), fastmath={"reassoc"})
def _gap(a: Any, b: Any) -> Any:
    total = 0.0
    for i in range(a.shape[0]):
        total += np.float64(a[i] - b[i])
    return total


@_compiled(void(_F, _F, _F, _F, _GRID))
def _residual(x: Any, grad: Any, out: Any, sensitivity: Any, grid: Any) -> None:
    """Gradient of the input, and the derivative of each quantized value by the scale."""
    inverse, _, low, high = grid
    for i in range(x.shape[0]):
        p = x[i] * inverse
        # one step of room on either side: what lies outside must still round to something else than q
        c = p if p > low - _ONE else low - _ONE
        c = c if c < high + _ONE else high + _ONE
        r = (c + _MAGIC) - _MAGIC
        q = r if r > low else low
        q = q if q < high else high
        inside = _ONE if q == r else _ZERO
        out[i] = grad[i] * inside
        sensitivity[i] = q - p * inside


@_compiled(numba.types.UniTuple(float32, 4)(float32, _GRID))
def _step(x: Any, grid: Any) -> Any:
    """One value on a grid, whether it is inside, and its derivatives by scale and zero_point."""
    inverse, scale, low, high = grid
    p = x * inverse
    r = np.float32(np.rint(p))
    q = low if r < low else r
    q = high if q > high else q
    inside = _ONE if q == r else _ZERO
    return q * scale, inside, q - p * inside, (inside - _ONE) * scale


@_compiled(void(_F, _F, _LAYOUT, _GRID, int64, int64))
def quantize(x: Any, out: Any, layout: Any, grid: Any, first: Any, last: Any) -> None:
    """Put the blocks ``first`` to ``last`` on a grid."""
    size, inner, x_row, _, out_row = layout
    at, end = first * BLOCK, min(last * BLOCK, size)
    while at < end:
        row = at // inner
        column = at - row * inner
        n = min(inner - column, end - at)
        i, o = row * x_row + column, row * out_row + column
        _round(x[i : i + n], out[o : o + n], grid)
        at += n


@_compiled(void(_F, _F, _F, _LAYOUT, _GRID, int64, int64))
def gate(x: Any, out: Any, table: Any, layout: Any, grid: Any, first: Any, last: Any) -> None:
    """Look up what lies behind a grid; the table's last entry is for NaN."""
    size, inner, x_row, _, out_row = layout
    index = np.empty(BLOCK, np.uint16)
    at, end = first * BLOCK, min(last * BLOCK, size)
    while at < end:
        row = at // inner
        column = at - row * inner
        n = min(inner - column, end - at, BLOCK)
        i, o = row * x_row + column, row * out_row + column
        _indices(x[i : i + n], index[:n], grid, np.uint16(table.shape[0] - 1))
        _take(table, index[:n], out[o : o + n])
        at += n


@_compiled(void(_F, _F, _F, _T, _SUMS, _LAYOUT, _GRID, boolean, int64, int64))
def gradients(
    x: Any, grad: Any, out: Any, tables: Any, sums: Any, layout: Any, grid: Any, zero: Any, first: Any, last: Any
) -> None:
    """Gradient of the input, and for each block the sums behind those of ranges.

    The first table, where there is one, holds the derivative of what lies behind the grid; others are weighted with
    ``grad`` and summed. Columns of ``sums``: for the scale, for the zero_point if ``zero``, for each further table.
    """
    size, inner, x_row, grad_row, out_row = layout
    index, behind, work = np.empty(BLOCK, np.uint16), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    looks_up, nan = tables.shape[0] > 0, np.uint16(tables.shape[1] - 1)
    for block in range(first, last):
        # np.empty above: a block's row is cleared by the thread that fills it
        sums[block, :] = 0.0
        at, end = block * BLOCK, min((block + 1) * BLOCK, size)
        while at < end:
            row = at // inner
            column = at - row * inner
            n = min(inner - column, end - at)
            i, j, o = row * x_row + column, row * grad_row + column, row * out_row + column
            values, given, place = x[i : i + n], grad[j : j + n], out[o : o + n]
            if looks_up:
                _indices(values, index[:n], grid, nan)
                for t in range(1, tables.shape[0]):
                    _take(tables[t], index[:n], work[:n])
                    sums[block, 1 + t] += _dot(given, work[:n])
                # the chain rule: from here on ``given`` is the gradient right behind the first grid
                _take(tables[0], index[:n], behind[:n])
                _multiply(given, behind[:n])
                given = behind[:n]
            _residual(values, given, place, work[:n], grid)
            sums[block, 0] += _dot(given, work[:n])
            if zero:
                # given minus its masked self is the gradient where values are clipped, which is the zero_point's
                sums[block, 1] += _gap(given, place)
            at += n


@_compiled(void(_F, _F, _T, _GRID, boolean, _GRID, boolean))
def tabulate(y: Any, s: Any, tables: Any, unit: Any, has_unit: Any, product: Any, has_product: Any) -> None:
    """Tables of a quantized SiLU at every value of its pre-activation, in the order of operations of the chain.

    Args:
        y: Values of the pre-activation.
        s: Their sigmoid.
        tables: (6, values): result, derivative, and derivatives by scale and zero_point of the sigmoid's grid and of
            the product's.
        unit: The sigmoid's grid.
        has_unit: Whether there is one.
        product: The product's grid.
        has_product: Whether there is one.
    """
    for i in range(y.shape[0]):
        value, passes, by_scale, by_zero = s[i], _ONE, _ZERO, _ZERO
        if has_unit:
            value, passes, by_scale, by_zero = _step(s[i], unit)
        slope = value + y[i] * passes * s[i] * (_ONE - s[i])
        result, inside, last_scale, last_zero = y[i] * value, _ONE, _ZERO, _ZERO
        if has_product:
            result, inside, last_scale, last_zero = _step(result, product)
        tables[0, i], tables[1, i] = result, slope * inside
        tables[2, i], tables[3, i] = by_scale * y[i] * inside, by_zero * y[i] * inside
        tables[4, i], tables[5, i] = last_scale, last_zero


@_compiled(void(_T, _T, _F, _F, float32, float32))
def fold_quantize(weight: Any, out: Any, factor: Any, scale: Any, low: Any, high: Any) -> None:
    """Multiply each row by its factor and put it on its grid, without offset."""
    for row in range(weight.shape[0]):
        values, place, by = weight[row], out[row], factor[row]
        inverse, step = _ONE / scale[row], scale[row]
        for i in range(values.shape[0]):
            p = (values[i] * by) * inverse
            p = low if p < low else p
            p = high if p > high else p
            place[i] = ((p + _MAGIC) - _MAGIC) * step


@_compiled(void(_T, _T, _T, _F, _F, _F, _F, float32, float32))
def fold_quantize_gradients(
    weight: Any, grad: Any, out: Any, factor: Any, scale: Any, by_factor: Any, by_scale: Any, low: Any, high: Any
) -> None:
    """Gradients of weights, factors and scales."""
    folded, behind = np.empty(weight.shape[1], np.float32), np.empty(weight.shape[1], np.float32)
    sensitivity = np.empty(weight.shape[1], np.float32)
    for row in range(weight.shape[0]):
        values, given, place, by = weight[row], grad[row], out[row], factor[row]
        grid = (_ONE / scale[row], scale[row], low, high)
        for i in range(values.shape[0]):
            folded[i] = values[i] * by
        _residual(folded, given, behind, sensitivity, grid)
        by_scale[row] = _dot(given, sensitivity)
        by_factor[row] = _dot(behind, values)
        for i in range(values.shape[0]):
            place[i] = behind[i] * by
