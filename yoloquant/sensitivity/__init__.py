"""Which layers a model can least do without: measured one by one, for pruning and for quantization."""

from __future__ import annotations

from ..evaluation.sensitivity import Measured, Sensitivity
from .analyze import analyze
from .analyze_options import AnalyzeOptions, Kind, Metric, Per

__all__ = ["AnalyzeOptions", "Kind", "Measured", "Metric", "Per", "Sensitivity", "analyze"]
