"""Parts of one pass over the images, put together as if one process had made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from ..data.dataset import ValidationSet
from .evaluate import Evaluation, RunnerRecord


def merged(parts: Sequence[Evaluation], data: ValidationSet, seconds: float) -> Evaluation:
    """Put parts together.

    Results of an image depend on that image alone, so nothing is computed here, and what is computed from the whole
    is the same to the last bit.

    Args:
        parts: Of images that follow each other, in their order; every image is in one of them.
        data: All images.
        seconds: Wall time of all parts together.
    """
    first = parts[0]
    # what failed on one image is left out on all, and the first image that it failed on is named
    errors = {name: text for part in reversed(parts) for name, text in part.errors.items()}
    names = [name for name in first.records if all(name in part.records for part in parts)]
    return replace(
        first,
        data=data,
        letterboxes=_one_behind_the_other([part.letterboxes for part in parts]),
        labels=_one_behind_the_other([part.labels for part in parts]),
        references=_one_behind_the_other([part.references for part in parts]),
        records={name: _record([part.records[name] for part in parts]) for name in names},
        errors=errors,
        seconds=seconds,
    )


def _record(parts: Sequence[RunnerRecord]) -> RunnerRecord:
    """One runner's record on all images."""
    return RunnerRecord(
        **{f.name: _one_behind_the_other([getattr(p, f.name) for p in parts]) for f in fields(parts[0])}
    )


def _one_behind_the_other(values: Sequence[Any]) -> Any:
    """Lists as one list; of mappings, what stands under each key."""
    if isinstance(values[0], list):
        return [item for value in values for item in value]
    found: dict[Any, Any] = {}
    for value in values:
        for key, item in value.items():
            found[key] = [*found.get(key, []), *item] if isinstance(item, list) else item
    return found
