"""Operations with 16-bit activations among 8-bit ones: Qualcomm's provider takes an operation in one width alone.

One with any 16-bit activation is computed in 16 bits. Its 8-bit operands move to a grid with 256 steps for each of
theirs, which holds them exactly, and its 8-bit results are written on such a grid first; the NPU has an operation
between the two widths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

_FINER = 256
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_BITS = {"uint8": 8, "uint16": 16}
_INT32 = np.iinfo(np.int32)


def unify_widths(model: ir.Model) -> int:
    """Let every operation read and write activations of one width, in place.

    Args:
        model: A Q/DQ model with unsigned activations.

    Returns:
        How many operations had both.
    """
    grids, count = _Grids(model.graph), 0
    for node in list(model.graph):
        if node.op_type in {_QUANTIZE, _DEQUANTIZE}:
            continue
        makers = ((i, value.producer()) for i, value in enumerate(node.inputs) if value is not None)
        reads = [(i, made) for i, made in makers if made is not None and _bits(made)]
        writes = [(o, user) for o in node.outputs for user in o.consumers() if user.op_type == _QUANTIZE]
        if {_bits(made) for _, made in reads} | {_bits(user) for _, user in writes} != {8, 16}:
            continue
        count += 1
        for position, made in reads:
            if _bits(made) == 8:
                node.replace_input_with(position, grids.finer(made.outputs[0], made, node))
                if position == 0:
                    grids.refine_bias(node)
        for output, user in writes:
            if _bits(user) == 8:
                user.replace_input_with(0, grids.finer(output, user, user))
    return count


def _bits(node: ir.Node) -> int:
    """Bits of the activations that a node makes floats of, or the reverse; 0 of any other node."""
    if node.op_type not in {_QUANTIZE, _DEQUANTIZE} or len(node.inputs) < 3:
        return 0
    zero = node.inputs[2]
    return 0 if zero is None or zero.const_value is None else _BITS.get(zero.const_value.numpy().dtype.name, 0)


class _Grids:
    """Pairs of 16 bits beside those of a graph, each made once."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.made: dict[tuple[ir.Value, bytes], ir.Value] = {}
        self.biases: dict[ir.Value, ir.Value] = {}

    def finer(self, source: ir.Value, like: ir.Node, before: ir.Node) -> ir.Value:
        """A tensor behind a pair with 256 steps for each of a node's."""
        import onnx_ir as ir

        scale, zero = (_number(like, position) for position in (1, 2))
        # one result may be written on several grids, for different readers
        key = source, scale.tobytes() + zero.tobytes()
        if key not in self.made:
            others = sum(known is source for known, _ in self.made)
            name = f"{source.name}/{others}/wide" if others else f"{source.name}/wide"
            constants = [
                self._constant(f"{name}/finer", scale / np.float32(_FINER)),
                self._constant(f"{name}/zero", (zero.astype(np.uint32) * _FINER).astype(np.uint16)),
            ]
            quantize = ir.node(_QUANTIZE, [source, *constants], name=f"{name}/quantize")
            dequantize = ir.node(_DEQUANTIZE, [quantize.outputs[0], *constants], name=f"{name}/dequantize")
            quantize.outputs[0].name, dequantize.outputs[0].name = f"{name}/quantized", f"{name}/dequantized"
            self.graph.insert_before(before, [quantize, dequantize])
            self.made[key] = dequantize.outputs[0]
        return self.made[key]

    def refine_bias(self, node: ir.Node) -> None:
        """Keep a bias on the grid of the accumulator, whose steps get as fine as those of what is read."""
        import onnx_ir as ir

        bias = node.inputs[2] if len(node.inputs) > 2 else None
        made = bias.producer() if bias is not None else None
        if bias is None or made is None or made.op_type != _DEQUANTIZE or _bits(made):
            return
        # a copy: another layer may read this bias, and what it reads stays as it is
        if bias not in self.biases:
            integers, scale = (_number(made, position) for position in (0, 1))
            finer = np.clip(integers.astype(np.int64) * _FINER, _INT32.min, _INT32.max).astype(np.int32)
            constants = [
                self._constant(f"{made.name}/wide/int32", finer),
                self._constant(f"{made.name}/wide/finer", scale / np.float32(_FINER)),
            ]
            copied = ir.node(
                _DEQUANTIZE, [*constants, *made.inputs[2:]], dict(made.attributes), name=f"{made.name}/wide"
            )
            copied.outputs[0].name = f"{bias.name}/wide"
            self.graph.insert_after(made, copied)
            self.biases[bias] = copied.outputs[0]
        node.replace_input_with(2, self.biases[bias])
        if not bias.uses() and not bias.is_graph_output():
            self.graph.remove(made, safe=True)

    def _constant(self, name: str, value: np.ndarray) -> ir.Value:
        import onnx_ir as ir

        constant = ir.val(name, const_value=ir.tensor(np.asarray(value), name=name))
        self.graph.register_initializer(constant)
        return constant


def _number(node: ir.Node, position: int) -> np.ndarray:
    value = node.inputs[position]
    assert value is not None and value.const_value is not None
    return np.asarray(value.const_value.numpy())
