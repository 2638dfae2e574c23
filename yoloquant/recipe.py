"""A recipe: the whole job in one validated file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .data.calibration_options import DEFAULT_IMAGES, MIN_IMAGES, CalibrationOptions
from .errors import UsageError
from .evaluation.validate_options import ValidateOptions
from .pruning.prune_options import parse as parse_prune
from .quantization.quantize_options import QuantizeOptions
from .quantization.range_options import Algorithm, CalibrationRecipe
from .training.qat.qat_options import parse


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CalibrationPart(_Strict):
    """Which images calibrate, see ``CalibrationOptions``."""

    images: int = Field(default=DEFAULT_IMAGES, ge=MIN_IMAGES)
    split: str = "train"
    seed: int = 0
    allow_scored: bool = False


class RangesPart(_Strict):
    """Which algorithm finds which range, see ``CalibrationRecipe``."""

    activation: Algorithm = CalibrationRecipe.activation
    pre_activation: Algorithm = CalibrationRecipe.pre_activation
    score: Algorithm = CalibrationRecipe.score
    head: Algorithm = CalibrationRecipe.head
    weight: Algorithm = CalibrationRecipe.weight
    percentile: float = Field(default=CalibrationRecipe.percentile, gt=50, le=100)

    @field_validator("weight")
    @classmethod
    def _for_weights(cls, value: Algorithm) -> Algorithm:
        if value not in {Algorithm.MINMAX, Algorithm.MSE}:
            raise ValueError("weights can only use minmax and mse")
        return value


class ValidationPart(_Strict):
    """How artifacts are judged, see ``ValidateOptions``."""

    gate: str | dict[str, Any] = "default"
    data: str | None = None
    source: str | None = None
    split: str = "val"
    limit: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    latency: bool = True
    memory: bool = True
    bootstrap: int = Field(default=1000, ge=100)
    manifest: str | None = None


class TrainPart(_Strict):
    """Training between calibration and export, see ``yoloquant.train``.

    Attributes:
        qat: A preset, or fields of ``QATOptions``.
        arguments: Ultralytics' training arguments, for instance epochs, batch and device.
    """

    qat: str | dict[str, Any] = "standard"
    arguments: dict[str, Any] = Field(default_factory=dict)

    @field_validator("qat")
    @classmethod
    def _known(cls, value: Any) -> Any:
        try:
            parse(value)
        except UsageError as exc:
            raise ValueError(str(exc)) from exc
        return value


class PrunePart(_Strict):
    """Pruning and fine-tuning before anything else, see ``yoloquant.train(prune=...)``.

    Attributes:
        options: A share of the multiplications, or fields of ``PruneOptions``.
        arguments: Ultralytics' training arguments of the fine-tuning, for instance epochs, batch and device.
    """

    options: float | dict[str, Any] = 0.5
    arguments: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _known(cls, value: Any) -> Any:
        try:
            parse_prune(value)
        except UsageError as exc:
            raise ValueError(str(exc)) from exc
        return value


class Recipe(_Strict):
    """Everything that ``yoloquant run`` needs.

    Attributes:
        model: Trained checkpoint.
        data: Data yaml; its train split calibrates, its val split scores.
        targets: Target or device names, or ``all``.
        scheme: Scheme names; ``auto`` gives every target its own.
        imgsz: Input size; the checkpoint's own by default.
        attention: ``keep``, or ``fitted`` to replace self-attention, which an Edge TPU cannot run, by convolutions
            fitted to training images before quantization. The original model stays what results are compared with.
        output: Folder for checkpoint, exports and report.
        calibration: Which images calibrate.
        ranges: Which algorithm finds which range.
        prune: Pruning and fine-tuning, first of all; none if None.
        train: Quantization-aware training before the export; calibration alone if None.
        validation: How artifacts are judged.
        allow_unsafe: Read checkpoints that can run code.
    """

    model: str
    data: str
    targets: tuple[str, ...] = ("all",)
    scheme: tuple[str, ...] = ("auto",)
    imgsz: int | tuple[int, int] | None = None
    attention: Literal["keep", "fitted"] = "keep"
    output: str | None = None
    calibration: CalibrationPart = CalibrationPart()
    ranges: RangesPart = RangesPart()
    prune: PrunePart | None = None
    train: TrainPart | None = None
    validation: ValidationPart = ValidationPart()
    allow_unsafe: bool = False

    @field_validator("train", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return {"qat": value} if isinstance(value, str) else value

    @field_validator("prune", mode="before")
    @classmethod
    def _share(cls, value: Any) -> Any:
        return {"options": value} if isinstance(value, (int, float, str)) else value

    @field_validator("targets", "scheme", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(v.strip() for v in value.split(",")) if isinstance(value, str) else value

    @property
    def calibration_options(self) -> CalibrationOptions:
        """Which images calibrate."""
        return CalibrationOptions(**self.calibration.model_dump(), scored_split=self.validation.split)

    @property
    def quantize_options(self) -> QuantizeOptions:
        """Options for ``api.quantize``."""
        return QuantizeOptions(
            imgsz=self.imgsz,
            calibration=self.calibration_options,
            ranges=CalibrationRecipe(**self.ranges.model_dump()),
            allow_unsafe=self.allow_unsafe,
        )

    def validate_options(self, report: Path) -> ValidateOptions:
        """Options for ``api.validate``."""
        return ValidateOptions(**self.validation.model_dump(exclude={"data", "source"}), report=report)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe; relative paths in it are relative to the working directory, as on the command line.

    Raises:
        UsageError: The file does not exist, is not YAML, or holds unknown keys or bad values.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"recipe '{path}' does not exist")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise UsageError(f"recipe '{path}' is not readable YAML: {exc}") from exc
    return make_recipe(content, str(path))


def as_recipe(recipe: Recipe | str | os.PathLike[str] | None, keys: Mapping[str, Any]) -> Recipe:
    """Combine a recipe, or the path of one, with keys that override its own.

    Raises:
        UsageError: The file is not a recipe, or a key is unknown or has a bad value.
    """
    if recipe is None:
        return make_recipe(dict(keys), "arguments")
    known = recipe if isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    return make_recipe({**known.model_dump(exclude_unset=True), **keys}, "recipe") if keys else known


def make_recipe(content: Any, where: str = "recipe") -> Recipe:
    """Validate a recipe's content.

    Raises:
        UsageError: It holds unknown keys or bad values; the message names each, and what is allowed.
    """
    if not isinstance(content, dict):
        raise UsageError(f"{where}: a recipe holds keys such as model, data and targets, got {type(content).__name__}")
    try:
        return Recipe.model_validate(content)
    except ValidationError as exc:
        raise UsageError(f"{where}: " + "; ".join(_problem(dict(e)) for e in exc.errors())) from exc


_PARTS: dict[str, type[BaseModel]] = {
    "calibration": CalibrationPart,
    "ranges": RangesPart,
    "prune": PrunePart,
    "train": TrainPart,
    "validation": ValidationPart,
}


def _problem(error: dict[str, Any]) -> str:
    place = [str(p) for p in error["loc"]]
    if error["type"] == "extra_forbidden":
        fields = (_PARTS[place[0]] if len(place) > 1 else Recipe).model_fields
        return f"unknown key '{'.'.join(place)}'; allowed are {', '.join(fields)}"
    if error["type"] == "missing":
        return f"key '{'.'.join(place)}' is missing"
    return f"{'.'.join(place)}={error['input']!r}: {error['msg']}"
