"""Plots of a run (placeholder until written)."""

from __future__ import annotations

from typing import Any


def write_plots(*args: Any) -> None:
    """Nothing yet."""
