"""Data sets of Hugging Face's ``datasets`` on disk: what ``save_to_disk`` writes, and folders of Parquet files.

The files are Arrow's, and pyarrow reads them: nothing else of ``datasets`` is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ...errors import DataError, UsageError
from ...runtime.tasks.base import Drawn
from .base import Contents, DataFormat, Found, Picture, Thing, split_of, stated_size, undivided

# the names that data sets on the hub use; the format itself prescribes none
BOXES, CLASSES = ("bbox", "bboxes", "boxes"), ("category", "categories", "category_id", "label", "labels", "class")
OBJECTS = ("objects", "annotations")


class HuggingFace(DataFormat):
    """Rows of an image with its ``objects`` (``bbox`` and ``category``), or with its ``label``."""

    title: ClassVar[str] = "Hugging Face data set"

    def find(self, data: str) -> Found | None:
        """See ``DataFormat.find``."""
        root = Path(data)
        if not root.is_dir():
            return None
        # one split, saved by itself
        if (root / "state.json").is_file():
            return Found(data, root, undivided(_arrow(root)))
        splits: dict[str, tuple[Path, ...]] = {}
        if (root / "dataset_dict.json").is_file():
            for folder in sorted(f for f in root.iterdir() if (f / "state.json").is_file()):
                # two folders may be of one split ("train" and "train_more"), as files may below
                if (split := split_of(folder.name)) is not None:
                    splits[split] = (*splits.get(split, ()), *_arrow(folder))
            return Found(data, root, splits)
        for file in sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")]):
            # train-00000-of-00004.parquet
            split = split_of(file.stem.split("-")[0])
            if split is not None:
                splits[split] = (*splits.get(split, ()), file)
        return Found(data, root, splits) if splits else None

    def read(self, found: Found, *, keypoints: bool) -> Contents:
        """See ``DataFormat.read``."""
        if not found.splits:
            raise DataError(f"data '{found.source}' has no split that is called train, val or test")
        # of the first file: all files of a data set share their columns
        features = _features(next(iter(found.splits.values()))[0], found)
        columns = _Columns(features, found.source)
        names = columns.names
        # every class counts as used: knowing better would take reading all rows first
        contents = Contents(names, frozenset(range(len(names))), {}, classifies=columns.objects is None)
        contents.splits = {
            split: _pictures(files, columns, found, split, contents) for split, files in found.splits.items()
        }
        return contents


def _arrow(folder: Path) -> tuple[Path, ...]:
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        files = tuple(folder / entry["filename"] for entry in state["_data_files"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DataError(f"{folder / 'state.json'} does not list the data set's files ({exc!r})") from exc
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing} is listed in {folder / 'state.json'}, but does not exist")
    return files


def _pyarrow() -> Any:
    try:
        import pyarrow

        # a submodule that pyarrow does not import by itself
        import pyarrow.parquet
    except ImportError as exc:
        raise UsageError(
            'Hugging Face data sets are read by pyarrow, which is not installed: pip install "yoloquant[huggingface]"'
        ) from exc
    return pyarrow


def _features(file: Path, found: Found) -> Mapping[str, Any]:
    """What columns hold, as ``datasets`` notes it in the files themselves."""
    arrow = _pyarrow()
    try:
        if file.suffix == ".parquet":
            schema = arrow.parquet.read_schema(file)
        else:
            with arrow.OSFile(str(file)) as stream:
                schema = arrow.ipc.open_stream(stream).schema
        # Arrow's own types know no class names; ``datasets`` puts them beside the schema
        features: Mapping[str, Any] = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DataError(
            f"{file} does not say what its columns are ({exc!r}); write it with save_to_disk or to_parquet of datasets"
        ) from exc
    return features


class _Columns:
    """Which columns hold what."""

    def __init__(self, features: Mapping[str, Any], source: str) -> None:
        images = [k for k, v in features.items() if isinstance(v, dict) and v.get("_type") == "Image"]
        if not images:
            raise DataError(f"data '{source}' has no column of images; its columns are {', '.join(features)}")
        self.image = images[0]
        self.objects = next((name for name in OBJECTS if name in features), None)
        self.boxes = ""
        if self.objects is None:
            self.label = next((k for k, v in features.items() if isinstance(v, dict) and "names" in v), "")
            if not self.label:
                raise DataError(
                    f"data '{source}' has neither objects ({' or '.join(OBJECTS)}) nor a class label; its columns are "
                    f"{', '.join(features)}"
                )
            self.names = tuple(features[self.label]["names"])
            return
        inner = _inner(features[self.objects])
        self.boxes = next((name for name in BOXES if name in inner), "")
        self.label = next((name for name in CLASSES if name in inner), "")
        kind = _inner(inner.get(self.label, {}))
        if not self.boxes or not self.label or "names" not in kind:
            raise DataError(
                f"data '{source}': '{self.objects}' must hold boxes ({', '.join(BOXES)}) and classes with names "
                f"({', '.join(CLASSES)}, a ClassLabel); it holds {', '.join(inner)}"
            )
        self.names = tuple(kind["names"])


def _inner(feature: Any) -> Mapping[str, Any]:
    """A feature without the list around it, which releases of ``datasets`` write in several ways."""
    while isinstance(feature, list) or (isinstance(feature, dict) and "feature" in feature):
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    return feature if isinstance(feature, dict) else {}


def _rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    arrow = _pyarrow()
    for file in files:
        try:
            if file.suffix == ".parquet":
                for batch in arrow.parquet.ParquetFile(file).iter_batches(batch_size=64):
                    yield from batch.to_pylist()
            else:
                with arrow.memory_map(str(file)) as stream:
                    for batch in arrow.ipc.open_stream(stream):
                        # ``datasets`` writes a thousand rows a batch, each with its image: gigabytes as Python objects
                        for start in range(0, batch.num_rows, 64):
                            yield from batch.slice(start, 64).to_pylist()
        except (OSError, ValueError) as exc:
            raise DataError(f"{file} cannot be read: {exc}") from exc


def _pictures(
    files: Sequence[Path], columns: _Columns, found: Found, split: str, contents: Contents
) -> Iterator[Picture]:
    for number, row in enumerate(_rows(files)):
        where = f"data '{found.source}': row {number} of split '{split}'"
        image = row.get(columns.image) or {}
        path = Path(str(image.get("path") or ""))
        content = image.get("bytes") or b""
        # save_to_disk of a folder of images notes their paths, of the machine that wrote it
        file = None if content else next((p for p in (path, found.root / path) if path.name and p.is_file()), None)
        if not content and file is None:
            raise DataError(f"{where} holds no image, only the path '{path}', which does not exist")
        # without a path a name by which predictions can be matched, and with a suffix, without which it is no image
        name = path.name or f"{row.get('image_id', number)}{_suffix(content)}"
        if columns.objects is None:
            yield Picture(name, file, content, label=row[columns.label])
            continue
        boxes, labels = _objects(row[columns.objects], columns)
        if len(boxes) != len(labels):
            raise DataError(f"{where} has {len(boxes)} boxes and {len(labels)} classes")
        size = stated_size(row.get("height"), row.get("width"))
        things = []
        # COCO's convention, which detection sets on the hub follow
        for (x, y, width, height), label in zip(boxes, labels, strict=True):
            if not 0 <= label < len(columns.names):
                raise DataError(f"{where} has class {label}, but there are {len(columns.names)} class names")
            things.append(Thing(label, Drawn((x, y, x + width, y + height)), where))
        yield Picture(name, file, content, size, tuple(things))


def _objects(value: Any, columns: _Columns) -> tuple[list[Any], list[Any]]:
    """Boxes and classes of a row: lists in one object, or one object for each."""
    if isinstance(value, list):
        return [v[columns.boxes] for v in value], [v[columns.label] for v in value]
    return list((value or {}).get(columns.boxes) or ()), list((value or {}).get(columns.label) or ())


def _suffix(content: bytes) -> str:
    return ".png" if content.startswith(b"\x89PNG") else ".jpg"
