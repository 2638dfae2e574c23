"""What a sparse model says about its zeros."""

from __future__ import annotations

from typing import Any

RECORD = "yoloquant_sparse"  # attribute of a sparse module: plain data; trainers hold the zeros of such a model
TWO_FOUR = "2:4"  # the kind that tensor cores run


def sparse_record(module: Any) -> dict[str, Any]:
    """How a live model was made sparse: its kind, its amount; empty for a dense one."""
    record: dict[str, Any] = getattr(module, RECORD, None) or {}
    return record
