"""Which layers a model can least do without: measured one by one, for pruning and for quantization."""

from __future__ import annotations

from ..evaluation.sensitivity import Sensitivity, SensitivityMeasurement
from .analyze import analyze
from .analyze_options import AnalysisKind, AnalysisMetric, AnalyzeOptions, Per

__all__ = [
    "AnalysisKind",
    "AnalysisMetric",
    "AnalyzeOptions",
    "Per",
    "Sensitivity",
    "SensitivityMeasurement",
    "analyze",
]
