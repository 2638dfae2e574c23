"""What a lint rule is and what it returns; rules register themselves here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import OnnxGraph


class Severity(str, Enum):
    """How bad a finding is."""

    ERROR = "error"  # rejected by some TensorRT, or silently not Int8
    WARNING = "warning"  # built and right, but slower or less portable than it need be


@dataclass(frozen=True)
class LintFinding:
    """One place where a model breaks a rule.

    Attributes:
        rule: Identifier of the rule, for instance ``TRT003``.
        severity: How bad it is.
        node: Name of the ONNX node (or input or output) it is about; empty for the model as a whole.
        message: What is wrong.
        fix: What to do about it.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    fix: str


@dataclass(frozen=True)
class Issue:
    """What a rule function yields; the registry adds the rule's identifier and severity.

    Attributes:
        node: Name of the node.
        message: What is wrong there.
        fix: What to do about it.
    """

    node: str
    message: str
    fix: str


@dataclass(frozen=True)
class LintRule:
    """A registered rule.

    Attributes:
        id: Stable identifier.
        title: What must hold.
        why: What happens otherwise, and where that is known from.
        severity: Severity of its findings.
        check: Yields an issue for every place that breaks the rule.
    """

    id: str
    title: str
    why: str
    severity: Severity
    check: Callable[[OnnxGraph], Iterator[Issue]]


RULES: dict[str, LintRule] = {}

Check = Callable[["OnnxGraph"], Iterator[Issue]]


def rule(rule_id: str, title: str, *, why: str, severity: Severity = Severity.ERROR) -> Callable[[Check], Check]:
    """Register a rule function.

    Args:
        rule_id: Unique identifier.
        title: What must hold, in a few words.
        why: What happens otherwise, with its source.
        severity: Severity of the findings.

    Returns:
        The decorator; it returns the function unchanged.
    """

    def register(check: Check) -> Check:
        if rule_id in RULES:
            # At import: a copied identifier would silently replace a rule.
            raise AssertionError(f"two rules are called {rule_id}")
        RULES[rule_id] = LintRule(rule_id, title, why, severity, check)
        return check

    return register
