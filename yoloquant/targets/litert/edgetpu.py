"""Which operators an Edge TPU runs, checked without its compiler."""

from __future__ import annotations

from collections.abc import Mapping

# Source: https://coral.ai/docs/edgetpu/models-intro/#supported-operations, table 1.
SUPPORTED = frozenset(
    {
        "ADD",
        "AVERAGE_POOL_2D",
        "CONCATENATION",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "EXPAND_DIMS",
        "FULLY_CONNECTED",
        "L2_NORMALIZATION",
        "LOGISTIC",
        "LSTM",
        "MAXIMUM",
        "MAX_POOL_2D",
        "MEAN",
        "MINIMUM",
        "MUL",
        "PACK",
        "PAD",
        "PRELU",
        "QUANTIZE",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "RSQRT",
        "SLICE",
        "SOFTMAX",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SQUARED_DIFFERENCE",
        "SQUEEZE",
        "STRIDED_SLICE",
        "SUB",
        "SUM",
        "TANH",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
        "UNPACK",
    }
)


def unsupported(operators: Mapping[str, int]) -> dict[str, int]:
    """Operators that stay on the host, with their number.

    Args:
        operators: Number of operators of each kind in a file.

    Returns:
        Those that an Edge TPU does not run.
    """
    return {kind: count for kind, count in sorted(operators.items()) if kind not in SUPPORTED}


def remark(operators: Mapping[str, int]) -> str:
    """A sentence for people about what an Edge TPU would leave to the host; empty if it runs everything."""
    left = unsupported(operators)
    if not left:
        return ""
    named = ", ".join(f"{count} {kind}" for kind, count in left.items())
    return f"an Edge TPU does not run {named}: its compiler leaves the network behind the first of them to the CPU"
