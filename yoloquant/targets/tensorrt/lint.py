"""A linter for Q/DQ ONNX files: will every TensorRT from 8.5 on take this file, and run it in Int8?

It needs no TensorRT. The rules live in ``rules_format`` and ``rules_placement``; each has an identifier, a reason and a
fix. What only a compiler can tell is asked of TensorRT-RTX in :mod:`.rtx`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import onnx

from ...errors import ModelError
from . import rules_format, rules_placement
from .findings import RULES, LintFinding, LintRule, Severity
from .graph import OnnxGraph

__all__ = ["RULES", "LintFinding", "LintRule", "Severity", "errors", "lint", "rules"]

_RULE_MODULES = (rules_format, rules_placement)  # importing them registers their rules


def rules() -> tuple[LintRule, ...]:
    """All rules, by identifier."""
    return tuple(RULES[key] for key in sorted(RULES))


def lint(model: onnx.ModelProto | Path, *, planned_convs: Collection[str] | None = None) -> tuple[LintFinding, ...]:
    """Check a model against every rule.

    Args:
        model: The model, or the path of its file.
        planned_convs: Names of the Conv (or MatMul, Gemm) nodes that the plan quantizes; None if there is no plan.

    Returns:
        What was found, by rule and then in graph order; empty if the model follows every rule.

    Raises:
        ModelError: The path is no readable ONNX file.
    """
    graph = OnnxGraph(_load(model) if isinstance(model, Path) else model, planned_convs)
    return tuple(
        LintFinding(rule.id, rule.severity, issue.node, issue.message, issue.fix)
        for rule in rules()
        for issue in rule.check(graph)
    )


def errors(findings: Iterable[LintFinding]) -> tuple[LintFinding, ...]:
    """The findings that are errors."""
    return tuple(f for f in findings if f.severity is Severity.ERROR)


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except FileNotFoundError:
        raise ModelError(f"there is no ONNX file at {path}; export the model first") from None
    except Exception as exc:  # protobuf raises classes of its own, which differ between versions
        raise ModelError(f"{path} is no readable ONNX file ({exc}); export the model again") from exc
