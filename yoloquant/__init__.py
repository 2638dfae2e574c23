"""Small, fast, exact YOLO on the device it must run on, with its accuracy proven.

The public verbs load what they need when they are called: importing the package loads no torch, no Ultralytics and no
runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
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
    from .data.calibration import CalibrationOptions
    from .errors import YoloquantError
    from .evaluation.results import ValidationResult
    from .pruning.plan import PrunePlan
    from .pruning.prune import PruneResult, prune
    from .pruning.prune_options import PruneOptions
    from .quantization.artifact import Artifact
    from .quantization.observers import Algorithm, CalibrationRecipe
    from .quantization.plan import Plan
    from .sensitivity.analyze import analyze
    from .sensitivity.analyze_options import AnalyzeOptions
    from .sensitivity.result import Sensitivity
    from .training.prune.trainer import PruneTrainer
    from .training.qat.qat_options import QATOptions
    from .training.qat.trainer import QATTrainer
    from .types import ExportedModel, Task, Verdict

_WHERE = {
    "Algorithm": "quantization.observers",
    "AnalyzeOptions": "sensitivity.analyze_options",
    "Artifact": "quantization.artifact",
    "CalibrationOptions": "data.calibration",
    "CalibrationRecipe": "quantization.observers",
    "ExportResult": "api",
    "ExportedModel": "types",
    "Plan": "quantization.plan",
    "PruneOptions": "pruning.prune_options",
    "PrunePlan": "pruning.plan",
    "PruneResult": "pruning.prune",
    "PruneTrainer": "training.prune.trainer",
    "QATOptions": "training.qat.qat_options",
    "QATTrainer": "training.qat.trainer",
    "QuantizeOptions": "api",
    "Sensitivity": "sensitivity.result",
    "Task": "types",
    "TrainResult": "api",
    "ValidateOptions": "api",
    "ValidationResult": "evaluation.results",
    "Verdict": "types",
    "YoloquantError": "errors",
    "analyze": "sensitivity.analyze",
    "export": "api",
    "plan": "api",
    "prune": "pruning.prune",
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
