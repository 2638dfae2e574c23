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
    from .artifact import Artifact
    from .calibration import CalibrationOptions
    from .errors import YoloquantError
    from .quant.observers import Algorithm, CalibrationRecipe
    from .quant.plan import Plan
    from .training.options import QATOptions
    from .training.trainer import QATTrainer
    from .types import ExportedModel, Task, Verdict
    from .validation.results import ValidationResult

_WHERE = {
    "Algorithm": "quant.observers",
    "Artifact": "artifact",
    "CalibrationOptions": "calibration",
    "CalibrationRecipe": "quant.observers",
    "ExportResult": "api",
    "ExportedModel": "types",
    "Plan": "quant.plan",
    "QATOptions": "training.options",
    "QATTrainer": "training.trainer",
    "QuantizeOptions": "api",
    "Task": "types",
    "TrainResult": "api",
    "ValidateOptions": "api",
    "ValidationResult": "validation.results",
    "Verdict": "types",
    "YoloquantError": "errors",
    "export": "api",
    "plan": "api",
    "quantize": "api",
    "train": "api",
    "validate": "api",
    "write_report": "api",
}

__all__ = [
    "Algorithm",
    "Artifact",
    "CalibrationOptions",
    "CalibrationRecipe",
    "ExportResult",
    "ExportedModel",
    "Plan",
    "QATOptions",
    "QATTrainer",
    "QuantizeOptions",
    "Task",
    "TrainResult",
    "ValidateOptions",
    "ValidationResult",
    "Verdict",
    "YoloquantError",
    "__version__",
    "export",
    "plan",
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
