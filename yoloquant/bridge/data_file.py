"""Whether a data yaml can be there at all: answered before Ultralytics is imported, which takes seconds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import DataError


def check_data_file(name: str) -> None:
    """Refuse the name of a data yaml that is neither a file here nor one of Ultralytics' own.

    Whatever does not end as a yaml does (folders, COCO's JSON, data sets of Hugging Face) is left to what reads it.

    Raises:
        DataError: There is none.
    """
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"} or "://" in name or path.exists():
        return
    if not path.is_absolute() and _ships(path):
        return
    where = f" (looked in {path.resolve().parent})" if path.parent.is_dir() else f": there is no folder '{path.parent}'"
    raise DataError(f"data yaml '{name}' does not exist{where}, nor is it among Ultralytics' own")


def _ships(path: Path) -> bool:
    """Whether Ultralytics has it; where that cannot be told, it might."""
    spec = find_spec("ultralytics")  # finds it without importing it
    if spec is None or not spec.submodule_search_locations:
        return True
    if ".." in path.parts:
        return False
    # the same folders that Ultralytics' check_file looks through
    root = Path(next(iter(spec.submodule_search_locations)))
    return (root.parent / path).is_file() or any(found.is_file() for found in root.rglob(str(path)))
