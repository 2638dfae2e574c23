"""Small, fast, exact YOLO on the device it must run on, with its accuracy proven.

The public verbs load what they need when they are called: importing the package loads no torch, no Ultralytics and no
runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .analysis.options import AnalyzeOptions
    from .analysis.run import analyze
    from .analysis.sensitivity import Sensitivity
    from .api import (
        ExportResult,
        QuantizeOptions,
        TrainResult,
        ValidateOptions,
        export,
        plan,
        quantize,
        train,
        validate,
        write_report,
    )
    from .artifact import Artifact
    from .calibration import CalibrationOptions
    from .errors import YoloquantError
    from .pruning.api import PruneResult, prune
    from .pruning.options import PruneOptions
    from .pruning.plan import PrunePlan
    from .quant.observers import Algorithm, CalibrationRecipe
    from .quant.plan import Plan
    from .training.options import QATOptions
    from .training.pruning import PruneTrainer
    from .training.trainer import QATTrainer
    from .types import ExportedModel, Task, Verdict
    from .validation.results import ValidationResult

_WHERE = {
    "Algorithm": "quant.observers",
    "AnalyzeOptions": "analysis.options",
    "Artifact": "artifact",
    "CalibrationOptions": "calibration",
    "CalibrationRecipe": "quant.observers",
    "ExportResult": "api",
    "ExportedModel": "types",
    "Plan": "quant.plan",
    "PruneOptions": "pruning.options",
    "PrunePlan": "pruning.plan",
    "PruneResult": "pruning.api",
    "PruneTrainer": "training.pruning",
    "QATOptions": "training.options",
    "QATTrainer": "training.trainer",
    "QuantizeOptions": "api",
    "Sensitivity": "analysis.sensitivity",
    "Task": "types",
    "TrainResult": "api",
    "ValidateOptions": "api",
    "ValidationResult": "validation.results",
    "Verdict": "types",
    "YoloquantError": "errors",
    "analyze": "analysis.run",
    "export": "api",
    "plan": "api",
    "prune": "pruning.api",
    "quantize": "api",
    "train": "api",
    "validate": "api",
    "write_report": "api",
}

__all__ = [
    "Algorithm",
    "AnalyzeOptions",
    "Artifact",
    "CalibrationOptions",
    "CalibrationRecipe",
    "ExportResult",
    "ExportedModel",
    "Plan",
    "PruneOptions",
    "PrunePlan",
    "PruneResult",
    "PruneTrainer",
    "QATOptions",
    "QATTrainer",
    "QuantizeOptions",
    "Sensitivity",
    "Task",
    "TrainResult",
    "ValidateOptions",
    "ValidationResult",
    "Verdict",
    "YoloquantError",
    "__version__",
    "analyze",
    "export",
    "plan",
    "prune",
    "quantize",
    "train",
    "validate",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'yoloquant' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"yoloquant.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
