"""Tracing with ``torch.export``, for quantization and for pruning alike, and what its nodes say of themselves."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import torch
from torch import fx, nn

from ..errors import ModelError
from .decompositions import nodewise_decompositions
from .tracebacks import no_tracebacks


def export_program(
    module: nn.Module, channels: int, imgsz: tuple[int, int], what: str = "model", *, settled: bool = False
) -> Any:
    """Trace a module once.

    Args:
        module: What maps (1, channels, height, width) to its results; left untouched.
        channels: Input channels.
        imgsz: Input height and width in pixels, which are baked in.
        what: What it is, for the message.
        settled: Whether constants that its code computes once are constants of the trace too, and operations in place
            have become functional ones.

    Returns:
        A ``torch.export.ExportedProgram`` of ATen operations with static shapes.

    Raises:
        ModelError: Its code cannot be traced.
    """
    # values do not matter: only shapes and the operations that run are looked at
    example = torch.zeros(1, channels, *imgsz)
    with torch.no_grad(), warnings.catch_warnings(), no_tracebacks():
        warnings.simplefilter("ignore")
        try:
            if settled:
                # Ultralytics computes anchors on the first call of a size, and keeps them; before it, they are code
                module(example)
            # strict=True interprets bytecode with TorchDynamo, which custom layers break more easily
            program = torch.export.export(module, (example,), strict=False)
            if settled:
                # with an empty table: functional forms of in-place operations, and nothing broken up further
                with nodewise_decompositions():
                    return program.run_decompositions({})
            return program
        except Exception as exc:  # whatever the code of a custom layer raises
            raise ModelError(
                f"the {what} cannot be traced at imgsz={imgsz[0]}x{imgsz[1]}: {exc}; custom layers must be traceable "
                "by torch.export"
            ) from exc


def operation_name(node: fx.Node) -> str:
    """Name of a node's operation, without its overload."""
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "_opname", None) or getattr(node.target, "__name__", str(node.target))
    return str(packet).split(".")[0]
