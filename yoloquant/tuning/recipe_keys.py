"""Keys of a recipe by the names that people give them, and values put in their places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data.calibration_options import SampleOptions
from ..errors import UsageError
from ..options import FlatOption, flatten
from ..options.sentences import fields_of, kind
from ..options.ultralytics_words import same_word
from ..pruning.prune_options import PruneOptions
from ..quantization.range_options import CalibrationRecipe
from ..recipe import Recipe
from ..runtime.core.nearest import nearest
from ..training.qat.qat_options import QATOptions

Place = tuple[str, ...]

_PARTS: dict[Place, Any] = {
    ("calibration",): SampleOptions,
    ("ranges",): CalibrationRecipe,
    ("train", "qat"): QATOptions,
    ("prune", "options"): PruneOptions,
}
_HOSTS = {("train", "arguments"), ("prune", "arguments")}
"""Parts that hold Ultralytics' own arguments."""
_SHORT: dict[str, Place] = {"train": ("train", "qat", "preset"), "prune": ("prune", "options", "amount")}
"""What a recipe's ``train: fast`` and ``prune: 0.5`` say."""
_SAME = {
    "train.lr": "train.lr0",
    "prune.lr": "prune.lr0",
    "prune.pruning_ratio": "prune.amount",
    "prune.ratio": "prune.amount",
}
"""The field's words for what is called otherwise here."""
# What is in here would make trials incomparable, or let a study choose the images that it is judged on.
_FIXED = {
    "model": "a study is of one model",
    "data": "a study is of one data set",
    "output": "it is where results go",
    "imgsz": "scores of different input sizes cannot be compared; make a study for each",
    "validation": "it says how results are judged, which must be the same for all",
    "allow_unsafe": "it is about trust",
    "cache": "it changes no result",
    "calibration_split": "it decides what is held back for scoring",
    "split": "it decides what is held back for scoring",
    "allow_scored": "it decides what is held back for scoring",
}


@dataclass(frozen=True)
class RecipeKey:
    """One value of a recipe.

    Attributes:
        path: Its place.
        number: Whether it is a number.
        whole: Whether it is a whole one.
        why_fixed: Why it cannot be searched; empty where it can.
    """

    path: Place
    number: bool = False
    whole: bool = False
    why_fixed: str = ""

    @property
    def name(self) -> str:
        """Its place as one writes it: ``train.qat.loss``."""
        return ".".join(self.path)


def find_key(name: str) -> RecipeKey:
    """The value of a recipe that somebody names.

    Args:
        name: Its place (``train.qat.loss``), the command's flat name (``images``), or a short form: ``train.loss``,
            ``train.lr0``, ``prune.amount``, ``quantize.images``.

    Raises:
        UsageError: No recipe has such a key; the message names the nearest.
    """
    path = _path(name)
    if path is None:
        raise UsageError(f"no recipe has the key '{name}'{nearest(name, _known(name))}")
    # imported here: knowing the names loads Ultralytics and torch
    if path[:2] in _HOSTS:
        from ..training import host_arguments as host

        return RecipeKey(path, host.is_number(path[-1]), host.is_whole(path[-1]), _FIXED.get(path[-1], ""))
    annotation = _annotation(path)
    words = kind(annotation)
    fixed = _FIXED.get(path[0]) or _FIXED.get(path[-1], "")
    return RecipeKey(path, words.startswith(("a number", "a whole number")), words.startswith("a whole number"), fixed)


def _path(name: str) -> Place | None:
    words = tuple(_SAME.get(name, name).split("."))
    if len(words) == 1:
        flat = _flat().get(same_word(name))
        return None if flat is None else _SHORT.get(flat.name, flat.path)
    head, last = words[:-1], words[-1]
    if head == ("quantize",):
        found = _flat().get(last)
        return found.path if found is not None and found.path[0] in {"calibration", "ranges", "scheme"} else None
    if head in _PARTS:
        return _within(head, last)
    if head in _HOSTS:
        return (*head, last) if last in _host_names() else None
    if head in {("train",), ("prune",)}:
        # our own options first: where Ultralytics has one of the same name, the recipe means ours
        own = _within(_SHORT[head[0]][:2], last)
        return own if own is not None else (*head, "arguments", last) if last in _host_names() else None
    return words if head == ("validation",) and last in fields_of(fields_of(Recipe)["validation"].annotation) else None


def _flat() -> dict[str, FlatOption]:
    options = flatten(Recipe)
    return {alias: o for o in options.values() for alias in (o.name, *o.aliases)}


def _within(part: Place, name: str) -> Place | None:
    for each in flatten(_PARTS[part]).values():
        if name in (each.name, each.path[-1], *each.aliases):
            return (*part, *each.path)
    return None


def _host_names() -> tuple[str, ...]:
    from ..training import host_arguments as host

    return host.names()


def _annotation(path: Place) -> Any:
    # the longer place first: ("train", "qat") and not ("train",)
    for size in (2, 1):
        if path[:size] in _PARTS:
            return fields_of(_PARTS[path[:size]])[path[size]].annotation
    owner: Any = Recipe
    for word in path[:-1]:
        owner = fields_of(owner)[word].annotation
    return fields_of(owner)[path[-1]].annotation


def _known(name: str) -> list[str]:
    """Names that somebody may have meant by an unknown one."""
    head = name.rpartition(".")[0]
    if not head:
        return list(_flat())
    short = {name: place[:2] for name, place in _SHORT.items()}
    part = short.get(head, tuple(head.split(".")))
    found = [f"{head}.{each.path[-1]}" for each in flatten(_PARTS[part]).values()] if part in _PARTS else []
    if head == "quantize":
        found = [f"quantize.{n}" for n, o in _flat().items() if o.path[0] in {"calibration", "ranges", "scheme"}]
    if head in short or part in _HOSTS:
        found += [f"{head}.{each}" for each in _host_names()]
    return found or [".".join(p) for p in (*_PARTS, *_HOSTS)]


def with_values(content: Mapping[str, Any], values: Mapping[Place, Any]) -> dict[str, Any]:
    """A recipe's content with some values in their places; the given one stays as it is."""
    found = expanded(content)
    for path, value in values.items():
        part = found
        for word in path[:-1]:
            # copied on the way down, since the base is shared by all trials
            part[word] = dict(part.get(word) or {})
            part = part[word]
        part[path[-1]] = value
    return found


def value_at(content: Mapping[str, Any], path: Place) -> Any:
    """What a recipe says at a place.

    Raises:
        KeyError: It says nothing.
    """
    part: Any = expanded(content)
    for word in path:
        if not isinstance(part, Mapping):
            raise KeyError(".".join(path))
        part = part[word]
    return part


def expanded(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content with the short forms of ``train`` and ``prune`` written out."""
    expanded_content = dict(content)
    if isinstance(expanded_content.get("train"), str):
        expanded_content["train"] = {"qat": expanded_content["train"]}
    # a share or a preset: written out, so that a single value can be put in beside it
    if isinstance(expanded_content.get("prune"), (int, float, str)):
        expanded_content["prune"] = {"options": expanded_content["prune"]}
    for part, inner, short in _SHORT.values():
        holder = expanded_content.get(part)
        if isinstance(holder, Mapping) and isinstance(holder.get(inner), (int, float, str)):
            expanded_content[part] = {**holder, inner: {short: holder[inner]}}
    return expanded_content
