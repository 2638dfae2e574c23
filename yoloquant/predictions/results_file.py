"""Results of a validation, image by image, in one ``.npz``: what a later comparison needs instead of the models.

Boxes are kept in input pixels as they were selected, so that figures from the file are those of the models, bit by bit.
Images are known by the hash of their bytes.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import ValidationSet
from ..errors import DataError
from ..io import atomic_path
from ..runtime.core.damaged import UNREADABLE
from ..runtime.core.detections import Detections
from ..runtime.core.letterbox import Letterbox
from ..runtime.core.model_info import ModelInfo, Task
from ..runtime.tasks import spec_of
from .prediction_set import RecordedModel

FORMAT = 1
# an .npz of somebody else may have a header, too
MARK = "yoloquant-results"
MOST = 8 << 30
"""Bytes that a file may unpack to: COCO's 5,000 images with 300 results of ten models take a seventh of it."""
MOST_SIDE = 1 << 20
"""Pixels of an image's side."""


@dataclass(frozen=True)
class ResultRow:
    """One model of a results file.

    Attributes:
        name: The name of its row in the report.
        path: Its file.
        sha256: Hash of its content.
        scheme: How it was quantized.
        size_bytes: Its size.
        latency_ms: Median time of an inference; None if it was not measured.
        weights: Hash of the float weights that it quantizes, where it is known.
    """

    name: str
    path: str = ""
    sha256: str = ""
    scheme: str = ""
    size_bytes: int = 0
    latency_ms: float | None = None
    weights: str = ""


@dataclass(frozen=True)
class ResultsHeader:
    """What a results file says besides results.

    Attributes:
        info: The model.
        images: Name and hash of every image, in order.
        rows: The models, the baseline first.
        data_sha256: Hash of images and labels.
        made: When, in the words of the machine that made it.
        sizes: Height and width of every image as it was decoded; empty where that was not kept.
    """

    info: ModelInfo
    images: tuple[tuple[str, str], ...]
    rows: tuple[ResultRow, ...]
    data_sha256: str = ""
    made: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()


def storable(found: Sequence[Detections]) -> bool:
    """Whether results can be kept: those with masks take more room than they are worth."""
    # masks and outlines are objects, which only a pickle could hold
    return all(part.dtype.kind in "iuf" for one in found for part in one.parts.values())


def write_results(path: Path, header: ResultsHeader, found: Mapping[str, Sequence[Detections]]) -> None:
    """Write a results file, whole or not at all.

    Args:
        path: Where to.
        header: What it says; every one of its rows has results.
        found: Results of every row on every image, in input pixels.

    Raises:
        OutputError: It cannot be written.
    """
    info = asdict(header.info)
    info["task"] = header.info.task.value
    stated = {
        "mark": MARK,
        "format": FORMAT,
        "info": info,
        "images": header.images,
        "rows": [asdict(row) for row in header.rows],
        "data_sha256": header.data_sha256,
        "made": dict(header.made),
        "sizes": header.sizes,
    }
    arrays: dict[str, np.ndarray] = {"header": np.array(json.dumps(stated, default=str))}
    for index, row in enumerate(header.rows):
        results = found[row.name]
        columns = {"xyxy": [d.xyxy for d in results], "confidence": [d.confidence for d in results]}
        # all images in one array each: ten thousand small members would take longer to open than to read
        columns["class_id"] = [d.class_id.astype(np.int32) for d in results]
        for name in results[0].parts if results else ():
            columns[f"part_{name}"] = [d.parts[name] for d in results]
        arrays[f"{index}/count"] = np.array([len(d) for d in results], np.int32)
        arrays.update({f"{index}/{name}": np.concatenate(values) for name, values in columns.items()})
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


class ResultsFile:
    """A results file, read and checked; anybody may have written it.

    Args:
        path: The file.

    Raises:
        DataError: It is no such file, damaged, or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # before anything is unpacked: a small file can hold terabytes of zeros
            size = sum(item.file_size for item in zipfile.ZipFile(path).infolist())
            if size > MOST:
                raise DataError(f"results '{path}' unpack to {size >> 30} GB; this is no file of ours")
            self._file = np.load(str(path), allow_pickle=False)
            stated = json.loads(str(self._file["header"]))
            if stated["mark"] != MARK or stated["format"] != FORMAT:
                raise DataError(f"results '{path}' have format {stated.get('format')!r}; this release reads {FORMAT}")
            self.header = _header(stated)
        except DataError:
            raise
        except (*UNREADABLE, TypeError, AttributeError) as exc:
            raise DataError(
                f"'{path}' is no results file that validate wrote, or damaged ({exc!r}); validate again to write it"
            ) from exc
        # by content, so that images may have been moved or renamed since
        self._places = {digest: i for i, (_, digest) in enumerate(self.header.images)}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its rows, the baseline first."""
        return tuple(row.name for row in self.header.rows)

    def row(self, name: str) -> ResultRow:
        """What is known of a model."""
        return self.header.rows[self.names.index(name)]

    def model(self, name: str, data: ValidationSet, *, sized: bool = False) -> RecordedModel:
        """A model's results on images.

        Args:
            name: Name of its row.
            data: The images.
            sized: Whether the file's sizes of images are believed, and images need not be decoded to know where labels
                lie; for files that this package keeps for itself. A wrong size in somebody's file would move every
                label.

        Raises:
            DataError: It was run on other images, or the file is damaged.
        """
        hashes = [image.sha256 for image in data.images]
        missing = [i for i, digest in enumerate(hashes) if digest not in self._places]
        if missing:
            # the first ones are what limit= takes
            fewer = f", score fewer with limit={missing[0]}" if missing[0] else ""
            raise DataError(
                f"results '{self.path}' are of other images: {len(missing)} of {len(hashes)} that are scored are not "
                f"among its {len(self.header.images)} (the first is {data.images[missing[0]].path.name}); compare on "
                f"the data that it was recorded on{fewer}, or record it again"
            )
        found = self._results(self.names.index(name))
        places = [self._places[digest] for digest in hashes]
        sizes = [self.header.sizes[place] for place in places] if sized and self.header.sizes else []
        return StoredResults(self.header.info, [found[place] for place in places], sizes)

    def _results(self, index: int) -> list[Detections]:
        try:
            count = self._file[f"{index}/count"]
            names = [k for k in self._file.files if k.startswith(f"{index}/") and k != f"{index}/count"]
            columns = {name.partition("/")[2]: self._file[name] for name in names}
            whole = int(count.sum())
            sound = len(count) == len(self.header.images) and bool((count >= 0).all())
            sound = sound and columns["xyxy"].shape == (whole, 4)
            sound = sound and all(len(v) == whole and v.dtype.kind in "iuf" for v in columns.values())
            if not sound:
                raise ValueError("counts and results do not fit each other")
            parts = {n[len("part_") :]: v for n, v in columns.items() if n.startswith("part_")}
            ends = np.cumsum(count)
            # as detections are everywhere; the file has half the size
            kinds = columns["class_id"].astype(np.int64)
            return [
                Detections(
                    columns["xyxy"][start:end].astype(np.float32),
                    columns["confidence"][start:end].astype(np.float32),
                    kinds[start:end],
                    {name: values[start:end] for name, values in parts.items()},
                )
                for start, end in zip((ends - count).tolist(), ends.tolist(), strict=True)
            ]
        except (*UNREADABLE, TypeError) as exc:
            raise DataError(f"results '{self.path}' are damaged ({exc}); validate again to write them") from exc


def _header(stated: Mapping[str, Any]) -> ResultsHeader:
    info = dict(stated["info"])
    for key in ("names", "imgsz", "strides"):
        info[key] = tuple(info[key])
    info["kpt_shape"] = tuple(info["kpt_shape"]) if info["kpt_shape"] else None
    info["task"] = Task(info["task"])
    images = tuple((str(name), str(digest)) for name, digest in stated["images"])
    rows = tuple(ResultRow(**row) for row in stated["rows"])
    # files of earlier releases have none
    sizes = tuple((int(height), int(width)) for height, width in stated.get("sizes", ()))
    if sizes and (len(sizes) != len(images) or not all(0 < side <= MOST_SIDE for size in sizes for side in size)):
        raise ValueError("sizes and images do not fit each other")
    return ResultsHeader(ModelInfo(**info), images, rows, str(stated["data_sha256"]), dict(stated["made"]), sizes)


@dataclass(frozen=True)
class StoredResults(RecordedModel):
    """A model's results in the pixels of its own input.

    Attributes:
        info: The model.
        found: Its results on every image.
        sizes: Height and width of every image; empty where that is not known.
    """

    info: ModelInfo
    found: Sequence[Detections]
    sizes: Sequence[tuple[int, int]] = ()

    def on(self, index: int, where: Letterbox) -> Detections:
        """See ``RecordedModel.on``."""
        found = self.found[index]
        # the very numbers that were selected: the way over the original image would round
        if where.imgsz == self.info.imgsz:
            return found
        task = spec_of(self.info.task)
        own = task.canvas(where.original, self.info.imgsz).where
        return task.to_input(task.to_original(found, own), where)

    def size(self, index: int) -> tuple[int, int] | None:
        """See ``RecordedModel.size``."""
        return self.sizes[index] if self.sizes else None


def is_results_file(path: Path) -> bool:
    """Whether a file says that it is one; nothing else of it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            # members of an .npz end like this
            return "header.npy" in archive.namelist()
    except UNREADABLE:
        return False
