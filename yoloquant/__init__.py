"""Small, fast, exact YOLO on the device it must run on, with its accuracy proven.

The public verbs load what they need when they are called: importing the package loads no torch, no Ultralytics and no
runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# for editors and type checkers, which do not run __getattr__
if TYPE_CHECKING:
    from . import bundle, targets
    from .api import (
        analyze,
        bench,
        compare,
        export,
        history,
        plan,
        predict,
        prune,
        quantize,
        run,
        search,
        train,
        tune,
        validate,
        write_report,
    )
    from .data.calibration_options import CalibrationOptions
    from .errors import YoloquantError
    from .evaluation.results import ValidationResult
    from .evaluation.sensitivity import Sensitivity
    from .evaluation.validate_options import ValidateOptions
    from .inference.load import LoadedModel, load
    from .pipeline import RunResult
    from .pruning.plan import PrunePlan
    from .pruning.prune import PruneResult
    from .pruning.prune_options import PruneOptions
    from .quantization.artifact import Artifact
    from .quantization.plan import Plan
    from .quantization.quantize_options import QuantizeOptions
    from .quantization.range_options import Algorithm, CalibrationRecipe
    from .recipe import Recipe
    from .sensitivity.analyze_options import AnalyzeOptions
    from .targets.exports import ExportResult
    from .training.prune.trainer import PruneTrainer
    from .training.qat.qat_options import QATOptions
    from .training.qat.trainer import QATTrainer
    from .training.train import TrainResult
    from .tuning.results import TuneResult
    from .tuning.tune_options import TuneOptions
    from .types import ExportedModel, Task, Verdict

# each name's module, imported when the name is first used: torch and Ultralytics take seconds
_WHERE = {
    "Algorithm": "quantization.range_options",
    "AnalyzeOptions": "sensitivity.analyze_options",
    "Artifact": "quantization.artifact",
    "CalibrationOptions": "data.calibration_options",
    "CalibrationRecipe": "quantization.range_options",
    "ExportResult": "targets.exports",
    "ExportedModel": "types",
    "LoadedModel": "inference.load",
    "Plan": "quantization.plan",
    "PruneOptions": "pruning.prune_options",
    "PrunePlan": "pruning.plan",
    "PruneResult": "pruning.prune",
    "PruneTrainer": "training.prune.trainer",
    "QATOptions": "training.qat.qat_options",
    "QATTrainer": "training.qat.trainer",
    "Recipe": "recipe",
    "RunResult": "pipeline",
    "QuantizeOptions": "quantization.quantize_options",
    "Sensitivity": "evaluation.sensitivity",
    "Task": "types",
    "TrainResult": "training.train",
    "TuneOptions": "tuning.tune_options",
    "TuneResult": "tuning.results",
    "ValidateOptions": "evaluation.validate_options",
    "ValidationResult": "evaluation.results",
    "Verdict": "types",
    "YoloquantError": "errors",
    "analyze": "api",
    "bench": "api",
    "bundle": "",
    "compare": "api",
    "history": "api",
    "export": "api",
    "load": "inference.load",
    "plan": "api",
    "predict": "api",
    "prune": "api",
    "quantize": "api",
    "run": "api",
    "search": "api",
    "targets": "",
    "train": "api",
    "tune": "api",
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
    "LoadedModel",
    "Plan",
    "PruneOptions",
    "PrunePlan",
    "PruneResult",
    "PruneTrainer",
    "QATOptions",
    "QATTrainer",
    "QuantizeOptions",
    "Recipe",
    "RunResult",
    "Sensitivity",
    "Task",
    "TrainResult",
    "TuneOptions",
    "TuneResult",
    "ValidateOptions",
    "ValidationResult",
    "Verdict",
    "YoloquantError",
    "__version__",
    "analyze",
    "bench",
    "bundle",
    "compare",
    "export",
    "history",
    "load",
    "plan",
    "predict",
    "prune",
    "quantize",
    "run",
    "search",
    "targets",
    "train",
    "tune",
    "validate",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'yoloquant' has no attribute '{name}'")
    from importlib import import_module

    if not _WHERE[name]:  # a package whose functions are public: yoloquant.targets.names()
        return import_module(f"yoloquant.{name}")
    value = getattr(import_module(f"yoloquant.{_WHERE[name]}"), name)
    # so that __getattr__ is asked once for each name
    globals()[name] = value
    return value
