"""Two things that ``torch.onnx.export`` does anew each time, and need not: a third of an export.

It reads the source of every function that makes ONNX of an operation, although they never change. And onnxscript tries
each of its rules on every node, and writes a sentence about each that does not fit; nearly all end at the first
question, whether the node is the operation that the rule's pattern ends with. What is exported stays the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_REGISTRIES: dict[tuple[Any, ...], Any] = {}
"""What makes ONNX of which operation, by opset."""


@contextlib.contextmanager
def quick_export() -> Iterator[None]:
    """Let ``torch.onnx.export`` read its functions once and pass over rules for other operations.

    Releases that have neither where it is expected export as ever.
    """
    with _functions_read_once(), _matching_by_operation():
        yield


@contextlib.contextmanager
def _functions_read_once() -> Iterator[None]:
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        read = ONNXRegistry.from_torchlib
        own = ONNXRegistry.__dict__["from_torchlib"]
    except (ImportError, AttributeError, KeyError):
        yield
        return

    def remembered(*place: int, **opset: int) -> Any:
        key = (*place, *opset.items())
        if key not in _REGISTRIES:
            _REGISTRIES[key] = read(*place, **opset)
        known, result = _REGISTRIES[key], ONNXRegistry()
        # of the caller's own: an export may register operators of its own
        vars(result).update(vars(known), functions={op: list(found) for op, found in known.functions.items()})
        return result

    ONNXRegistry.from_torchlib = staticmethod(remembered)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = own  # type: ignore[method-assign]


@contextlib.contextmanager
def _matching_by_operation() -> Iterator[None]:
    try:
        from onnxscript.rewriter._basics import MatchResult
        from onnxscript.rewriter._matcher import SimplePatternMatcher

        match = SimplePatternMatcher.match
    except (ImportError, AttributeError):
        yield
        return
    none = MatchResult().fail("another operation")

    def by_operation(self: Any, model: Any, graph: Any, node: Any, *more: Any, **options: Any) -> Any:
        pattern = self.pattern
        wanted = pattern.output_node.op_identifier() if pattern.has_single_output_node else None
        if wanted is not None and wanted[1] != node.op_type:
            return none
        return match(self, model, graph, node, *more, **options)

    SimplePatternMatcher.match = by_operation  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        SimplePatternMatcher.match = match  # type: ignore[method-assign]
