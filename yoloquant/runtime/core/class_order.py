"""Class names of a model and of a data set: the same, in another order, or not the same classes at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Optional, Tuple

from ..errors import DataError


def class_labels(names: Sequence[str]) -> Tuple[str, ...]:
    """A label for every class that no other class has: its name, and its index where two classes share a name."""
    count = Counter(names)
    # Reports and limits are keyed by these; two classes of one name would overwrite each other.
    return tuple(name if count[name] == 1 else f"{name} [{i}]" for i, name in enumerate(names))


def class_order(model: Sequence[str], data: Sequence[str], source: str) -> Optional[Tuple[int, ...]]:
    """How the class indices of a data set become the model's.

    Names are compared without regard to case, blanks, hyphens and underscores.

    Args:
        model: Names of the model's classes, by index.
        data: Names of the data set's classes, by index.
        source: The data set, for messages.

    Returns:
        The model's index of each of the data set's classes; None if they are the same already.

    Raises:
        DataError: The data set has other classes, or names that are not unique and in another order.
    """
    if len(data) != len(model):
        raise DataError(
            f"the model has {len(model)} classes and data '{source}' has {len(data)}; "
            "score a model on the data set it was trained for"
        )
    theirs, ours = [plain_name(name) for name in data], [plain_name(name) for name in model]
    # Same order: also fine where names are not unique, since nothing has to be told apart by them.
    if theirs == ours:
        return None
    if sorted(theirs) != sorted(ours):
        missing = [name for name, plain in zip(data, theirs) if plain not in set(ours)]
        index = next(i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b)
        few = ", ".join(repr(name) for name in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(
            f"data '{source}' has other classes than the model: class {index} is '{data[index]}' there and "
            f"'{model[index]}' in the model"
            + (f", which has no {few}" if few else "")
            + "; score a model on the data set it was trained for, or give the classes the model's names"
        )
    if len(set(ours)) != len(ours):
        twice = next(name for name in model if ours.count(plain_name(name)) > 1)
        raise DataError(
            f"data '{source}' lists the model's classes in another order, and several are called '{twice}', so they "
            "cannot be told apart; give every class a name of its own, or use the model's order"
        )
    place = {name: i for i, name in enumerate(ours)}
    return tuple(place[name] for name in theirs)


def plain_name(name: str) -> str:
    """A class name as names are compared: without regard to case, blanks, hyphens and underscores."""
    return "".join(c for c in name.casefold() if c not in " _-")
