"""Which class of the model a category of a prediction file stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..runtime.core.class_order import plain_name

# COCO's 80 categories are numbered from 1 to 90 with gaps (instances_val2017.json); these numbers are not used.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO91 = tuple(number for number in range(1, 91) if number not in _UNUSED)


class ClassIds(str, Enum):
    """How a file numbers classes."""

    AUTO = "auto"  # by the numbers that it holds
    ZERO = "zero"  # the model's own indices
    ONE = "one"  # the model's indices plus 1, as Ultralytics writes them for data sets other than COCO
    COCO = "coco"  # COCO's own numbers from 1 to 90


_TITLES = {
    ClassIds.ZERO: "class indices from 0",
    ClassIds.ONE: "class numbers from 1",
    ClassIds.COCO: "COCO's own numbers, 1 to 90",
}


def _numbers(kind: ClassIds, classes: int) -> tuple[int, ...]:
    """The number of every class of a model, as far as there are any."""
    if kind is ClassIds.COCO:
        # a model of fewer classes has the first of them
        return COCO91[:classes]
    first = 0 if kind is ClassIds.ZERO else 1
    return tuple(range(first, first + classes))


def class_table(
    ids: np.ndarray, names: Sequence[str], ids_are: ClassIds, file: Path, categories: Mapping[int, str] | None = None
) -> tuple[dict[int, int], str]:
    """The model's class index for every category number.

    Args:
        ids: int64 (n,), the numbers that the file holds.
        names: Names of the model's classes.
        ids_are: What they are.
        file: The file, for messages.
        categories: Names by number, where the file or an annotation file states them.

    Returns:
        The table, and how it was found, in words.

    Raises:
        DataError: The file holds classes that the model does not have.
    """
    present = sorted(set(ids.tolist()))
    # names first: numbers can only be guessed at
    if categories:
        return _by_name(present, names, file, categories), "categories were matched by name"
    chosen = ids_are if ids_are is not ClassIds.AUTO else _guess(present, len(names))
    title = _TITLES[chosen]
    table = {number: index for index, number in enumerate(_numbers(chosen, len(names)))}
    foreign = [number for number in present if number not in table]
    if foreign:
        raise DataError(
            f"predictions '{file}' hold category {foreign[0]}"
            + (f" and {len(foreign) - 1} more" if len(foreign) > 1 else "")
            + f", which are no {title} of the model's {len(names)} classes; predictions of another model, or say what "
            "numbers they are with class_ids=zero, one or coco"
        )
    how = f"category numbers were read as {title}"
    return table, how + ("; class_ids= says otherwise" if ids_are is ClassIds.AUTO else "")


def _guess(present: Sequence[int], classes: int) -> ClassIds:
    """By the numbers; a wrong guess can only cost accuracy, so it never lets a bad model pass."""
    # no other numbering knows a 0
    if not present or present[0] == 0:
        return ClassIds.ZERO
    # above 80 only COCO's numbers go; below, one from 1 looks the same until such a class is found
    if classes == len(COCO91) and present[-1] > classes:
        return ClassIds.COCO
    return ClassIds.ONE


def _by_name(present: Sequence[int], names: Sequence[str], file: Path, categories: Mapping[int, str]) -> dict[int, int]:
    places = {plain_name(name): index for index, name in enumerate(names)}
    table: dict[int, int] = {}
    for number in present:
        name = categories.get(number)
        index = places.get(plain_name(name)) if name is not None else None
        if index is None:
            called = f"'{name}' ({number})" if name is not None else f"{number}, which has no name"
            raise DataError(
                f"predictions '{file}' hold category {called}; the model's {len(names)} classes are "
                f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}; score predictions of the same model"
            )
        table[number] = index
    return table
