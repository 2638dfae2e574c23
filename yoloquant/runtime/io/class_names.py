"""Class names from a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..errors import DataError


def read_labels(path: Path, count: int) -> tuple[str, ...]:
    """Class names from a text file: a line for each class, each with its number in front or none; or a JSON list.

    Args:
        path: The file.
        count: Classes of the model.

    Raises:
        DataError: It cannot be read, or has another number of names.
    """
    try:
        # The mark that Windows editors begin with would become a part of the first name.
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if path.suffix.lower() == ".json" else _label_lines(text)
    except (OSError, ValueError, RecursionError) as exc:
        raise DataError(f"labels file '{path}' cannot be read: {exc}") from exc
    if not isinstance(names, list) or len(names) != count:
        many = len(names) if isinstance(names, list) else "no list of"
        raise DataError(f"labels file '{path}' has {many} names, but the model has {count} classes; give one for each")
    return tuple(str(name) for name in names)


def _label_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [re.match(r"(\d+)\s*[:\s]\s*(\S.*)$", line) for line in lines]
    lines_by_number = {int(match[1]): match[2] for match in numbered if match}
    # Only where the numbers are exactly those of the classes: "3 wheeler" is a name.
    if lines and sorted(lines_by_number) == list(range(len(lines))):
        return [lines_by_number[index] for index in range(len(lines))]
    return lines
