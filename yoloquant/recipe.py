"""A recipe: the whole job in one validated file. It composes the option models; none is defined here again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from .data.calibration_options import CalibrationOptions, SampleOptions
from .errors import UsageError
from .evaluation.validate_options import ScoringOptions, ValidateOptions
from .io import parse_yaml
from .options import Text, TextOrNone, canonical, flatten, nest, option, option_model, sentences
from .options.shared import (
    AllowUnsafe,
    FloatLayers,
    InputSize,
    KeptResults,
    LayerPrecisions,
    ResultsFolder,
    Schemes,
    Targets,
    TrainedCheckpoint,
    UnlabelledImages,
)
from .pruning.prune_options import parse as parse_prune
from .quantization.quantize_options import QuantizeOptions
from .quantization.range_options import CalibrationRecipe
from .targets.onnx.graph_options import GraphOptions
from .training.qat.qat_options import parse as parse_qat


def _read_by(parse: Callable[[Any], Any]) -> AfterValidator:
    """Check a value with the parser of the verb that it is handed to, and keep it as it was given."""

    def check(value: Any) -> Any:
        try:
            parse(value)
        except UsageError as exc:
            # a type of its own, by which ``options.sentences`` knows that the words are complete
            raise PydanticCustomError("told", "{text}", {"text": str(exc)}) from exc
        return value

    # kept as given: a recipe that is written again says what its author said
    return AfterValidator(check)


@option_model
class ValidationPart(ScoringOptions):
    """How artifacts are judged, and on what."""

    data: TextOrNone = option(
        default=None, help="data yaml to score on, where it is another than data", flat="validation_data"
    )
    source: UnlabelledImages = None


@option_model
class TrainPart:
    """Training between calibration and export, see ``yoloquant.train``."""

    # Any: a name, a mapping or options, which only the verb's own parser tells apart
    qat: Annotated[Any, _read_by(parse_qat)] = option(default="standard", help="a preset, or fields of QATOptions")
    arguments: dict[str, Any] = option(
        default_factory=dict, help="Ultralytics' training arguments, for instance epochs, batch and device"
    )


@option_model
class PrunePart:
    """Pruning and fine-tuning before anything else, see ``yoloquant.train(prune=...)``."""

    options: Annotated[Any, _read_by(parse_prune)] = option(
        default=0.5, help="share of the multiplications to remove, or fields of PruneOptions"
    )
    arguments: dict[str, Any] = option(
        default_factory=dict,
        help="Ultralytics' training arguments of the fine-tuning, for instance epochs, batch and device",
    )


@option_model
class GraphPart(GraphOptions):
    """What exported graphs do besides the network, see ``yoloquant.export``."""

    conf: float | None = option(
        default=None,
        ge=0,
        le=1,
        help="with nms=true, the score that detections must be above, for good; 0.001 if not given",
        flat="nms_conf",  # conf is the threshold that artifacts are judged at
    )
    batch: int = option(
        default=1,
        ge=1,
        le=1024,
        help="images that exported graphs take at a time; onnxruntime, openvino and tensorrt",
        flat="export_batch",  # batch is what everybody calls that of training
    )


class Recipe(BaseModel):
    """Everything that ``yoloquant run`` needs."""

    # a misspelt key would otherwise be a default in disguise
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: TrainedCheckpoint
    data: Text = option(help="data yaml (a path, or a name like coco128.yaml): train calibrates, val scores")
    targets: Targets = ("all",)
    scheme: Schemes = ("auto",)
    imgsz: InputSize = None
    attention: Literal["keep", "fitted"] = option(
        default="keep",
        help="keep, or fitted: replace self-attention, which an Edge TPU cannot run, by convolutions fitted to "
        "training images; the original model stays what results are compared with",
    )
    output: ResultsFolder = None
    calibration: SampleOptions = option(default_factory=SampleOptions, help="which images calibrate")
    ranges: CalibrationRecipe = option(default_factory=CalibrationRecipe, help="which algorithm finds which range")
    float_layers: FloatLayers = ()
    precision: LayerPrecisions = ()
    prune: PrunePart | None = option(
        default=None, help="prune and fine-tune first: the share of the multiplications to remove", flat="prune"
    )
    train: TrainPart | None = option(
        default=None, help="train before exporting, with this preset: fast, standard or long", flat="train"
    )
    graph: GraphPart = option(default_factory=GraphPart, help="what exported graphs do besides the network")
    validation: ValidationPart = option(default_factory=ValidationPart, help="how artifacts are judged")
    allow_unsafe: AllowUnsafe = False
    cache: KeptResults = True

    @field_validator("train", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        # "train: fast" in a recipe
        return {"qat": value} if isinstance(value, str) else value

    @field_validator("prune", mode="before")
    @classmethod
    def _share(cls, value: Any) -> Any:
        # "prune: 0.5" in a recipe
        return {"options": value} if isinstance(value, (int, float, str)) else value

    @property
    def calibration_options(self) -> CalibrationOptions:
        """Which images calibrate."""
        # which split is scored is said once, in the recipe's validation
        return CalibrationOptions(**vars(self.calibration), scored_split=self.validation.split)

    @property
    def quantize_options(self) -> QuantizeOptions:
        """Options for ``quantization.ptq.quantize``."""
        return QuantizeOptions(
            imgsz=self.imgsz,
            calibration=self.calibration_options,
            ranges=self.ranges,
            float_layers=self.float_layers,
            precision=self.precision,
            allow_unsafe=self.allow_unsafe,
            cache=self.cache,
        )

    def validate_options(self, report: Path) -> ValidateOptions:
        """Options for ``evaluation.validate.validate``."""
        # the rest of the part are the options of validate, by the same names
        own = {key: value for key, value in vars(self.validation).items() if key not in ("data", "source")}
        return ValidateOptions(**own, allow_scored=self.calibration.allow_scored, cache=self.cache, report=report)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe; relative paths in it are relative to the working directory, as on the command line.

    Raises:
        UsageError: The file does not exist, is not YAML, or holds unknown keys or bad values.
    """
    return make_recipe(_content(Path(path)), str(path))


def _content(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"recipe '{path}' does not exist")
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise UsageError(f"recipe '{path}' is not readable YAML: {exc}") from exc


def as_recipe(recipe: Recipe | str | os.PathLike[str] | None, keys: Mapping[str, Any]) -> Recipe:
    """Combine a recipe, or the path of one, with keys that override its own.

    Args:
        recipe: A recipe, its path, or None for the keys alone.
        keys: Keys of a recipe (``calibration={"images": 64}``), or the command's flat ones (``images=64``).

    Raises:
        UsageError: The file is not a recipe, or a key is unknown or has a bad value.
    """
    # checked already: reading it back from its own content could only lose something
    if isinstance(recipe, Recipe) and not keys:
        return recipe
    content: Any = recipe_content(recipe)
    where = str(recipe) if isinstance(recipe, (str, os.PathLike)) else "recipe" if recipe else "arguments"
    if not isinstance(content, dict):
        return make_recipe(content, where)  # which says what is wrong with it
    # a recipe's own keys first: "validation={...}" is a part, "limit=100" an option inside of it
    parts = {key: value for key, value in keys.items() if key in Recipe.model_fields}
    options = flatten(Recipe)
    rest = canonical({k: v for k, v in keys.items() if k not in parts}, options.values(), "run")
    content = {**content, **parts}
    for part, values in nest(rest, options).items():
        known = content.get(part)
        # into the part that the recipe has, so that one flat key does not drop the others
        content[part] = {**known, **values} if isinstance(known, dict) and isinstance(values, dict) else values
    return make_recipe(content, where)


def recipe_content(recipe: Recipe | str | os.PathLike[str] | None) -> Any:
    """What a recipe, or the file of one, says, unchecked; nothing for None.

    Raises:
        UsageError: The file does not exist or is not YAML.
    """
    if isinstance(recipe, Recipe):
        # only what was set: defaults of this release must not become words of the user
        return {key: plain(getattr(recipe, key)) for key in recipe.model_fields_set}
    return {} if recipe is None else _content(Path(recipe))


def plain(part: Any) -> Any:
    """A part of a recipe as a mapping."""
    return asdict(part) if hasattr(part, "__dataclass_fields__") else part


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
        raise UsageError(f"{where}: {sentences(exc, Recipe)}") from exc
