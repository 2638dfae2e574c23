"""Averages whose last window reaches beyond the edge, said in a way that integer kernels get right.

With ``ceil_mode`` and a padding that counts, the int8 kernel of ONNX Runtime 1.31 (and OpenCV 5) divides by the places
behind the padding as well, which no average counts. Maxima, and averages that count no padding, are right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir


def write_out_padding(graph: ir.Graph, pool: ir.Node) -> None:
    """Let an average count only what is there, in place.

    Args:
        graph: The graph that it is in.
        pool: An ``AveragePool`` as torch exports it, with static shapes; without them it stays as it is.
    """
    import onnx_ir as ir

    attributes = pool.attributes
    if not any(attributes.get_ints("pads", [0])):
        # Torch writes it for every average. Without padding it says nothing.
        attributes.pop("count_include_pad", None)
    source, result = pool.inputs[0], pool.outputs[0]
    counts = attributes.get_int("ceil_mode", 0) and attributes.get_int("count_include_pad", 0)
    if not counts or source is None or source.shape is None or result.shape is None:
        return
    count = len(attributes.get_ints("kernel_shape", ()))
    pads = list(attributes.get_ints("pads", [0] * 2 * count))
    sizes, places = ([int(n) for n in list(shape)[2:]] for shape in (source.shape, result.shape))  # type: ignore[arg-type]
    beyond = _beyond(pool, pads, sizes, places)
    if not any(beyond):
        return
    # what counts becomes values; a padding behind it, which does not, takes the place of ceil_mode
    pool.replace_input_with(0, _padded(graph, pool, pads))
    for name in ("ceil_mode", "count_include_pad"):
        attributes.pop(name)
    attributes.add(ir.AttrInt64s("pads", [*[0] * count, *beyond]))


def _beyond(pool: ir.Node, pads: Sequence[int], sizes: Sequence[int], places: Sequence[int]) -> list[int]:
    """How far the last window reaches beyond the padded input along every axis."""
    count = len(sizes)
    kernel, strides, spread = (
        pool.attributes.get_ints(name, [1] * count) for name in ("kernel_shape", "strides", "dilations")
    )
    reach = [(places[i] - 1) * strides[i] + (kernel[i] - 1) * spread[i] + 1 for i in range(count)]
    return [max(reach[i] - sizes[i] - pads[i] - pads[count + i], 0) for i in range(count)]


def _padded(graph: ir.Graph, pool: ir.Node, pads: Sequence[int]) -> ir.Value:
    """What a pool reads, with zeros around it."""
    import onnx_ir as ir

    source, name, count = pool.inputs[0], f"{pool.name}/padded", len(pads) // 2
    amounts = [0, 0, *pads[:count], 0, 0, *pads[count:]]
    sizes = ir.val(f"{name}/sizes", const_value=ir.tensor(amounts, name=f"{name}/sizes"))
    graph.register_initializer(sizes)
    node = ir.node("Pad", [source, sizes], name=name)
    node.outputs[0].name = name
    graph.insert_before(pool, node)
    return node.outputs[0]
