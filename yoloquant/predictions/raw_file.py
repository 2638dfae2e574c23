"""Outputs of a head that were recorded on a device: an ``.npz`` which states how images were brought to the input.

For every image, named by its file: ``<image>#0``, ``<image>#1`` ... hold one inference's outputs as the network gave
them, dequantized, with the batch of one. Besides: ``layout``, a text: ``decoded``, ``end2end`` or ``raw`` (see
``HeadLayout``; raw levels are channels last, in the order of the task's branches); ``imgsz``, the input's height and
width; and ``letterbox``, either a text (``ultralytics``: centred with grey borders; ``topleft``: the image at the top
left; ``stretch``: both sides scaled on their own) or, as ``<image>#letterbox`` for every image, the four numbers left,
top, scale of x, scale of y, so that x in the input = left + scale of x * x in the image.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, DataError, TargetError
from ..runtime.core.damaged import UNREADABLE
from ..runtime.core.detections import Detections, Selection
from ..runtime.core.letterbox import Letterbox, place
from ..runtime.core.model_info import HeadLayout, ModelInfo
from ..runtime.tasks import spec_of
from .boxes import FRACTIONS
from .image_keys import ImageKeys
from .prediction_set import RecordedModel
from .rows import empty

MOST = 1 << 30
"""Bytes of one image's outputs: a file that unpacks to more wants memory, not a score."""
TRIED = 2
"""Images whose outputs are looked at before any work."""
ROUNDED = 0.02
"""How far beyond 0 and 1 a score may lie that was quantized and dequantized."""
FITS = ("ultralytics", "topleft", "stretch")


class RawOutputs(RecordedModel):
    """Recorded outputs, decoded when they are asked for: those of all images may not fit into memory.

    Args:
        path: The file.
        images: The images.
        info: The model that made them.

    Raises:
        DataError: It is no such file, states no letterbox, or is about other images.
    """

    def __init__(self, path: Path, images: ImageKeys, info: ModelInfo) -> None:
        self._path = path
        try:
            # a pickle could run code; plain arrays are read when they are asked for
            self._file = np.load(str(path), allow_pickle=False)
            # what each member unpacks to, without ".npy": looked at before it is unpacked
            self._sizes = {item.filename[:-4]: item.file_size for item in zipfile.ZipFile(path).infolist()}
        except UNREADABLE as exc:
            raise DataError(f"predictions '{path}' are no .npz of plain arrays: {exc}") from exc
        if not hasattr(self._file, "files"):
            raise DataError(f"predictions '{path}' hold one array; an .npz with a member for every image is needed")
        height, width = self._stated("imgsz", (2,)).astype(np.int64).tolist()
        self.info = replace(info, imgsz=(height, width))
        self._layout = self._layout_of()
        self._fit = str(self._array("letterbox")) if "letterbox" in self._file.files else ""
        if self._fit and self._fit not in FITS:
            raise DataError(f"predictions '{path}': letterbox '{self._fit}' is unknown; allowed are {', '.join(FITS)}")
        self.places = self._places(images)
        self._try()

    def _layout_of(self) -> HeadLayout:
        text = str(self._array("layout"))
        try:
            return HeadLayout(text)
        except ValueError as exc:
            allowed = ", ".join(layout.value for layout in HeadLayout)
            raise DataError(f"predictions '{self._path}': layout '{text}' is unknown; allowed are {allowed}") from exc

    def _places(self, images: ImageKeys) -> Mapping[int, str]:
        """Names of the members, by place of their image."""
        # "#0": every image has at least one output
        named = [name[:-2] for name in self._file.files if name.endswith("#0")]
        found, foreign = {}, []
        for name in named:
            place = images.find(name)
            if place is None:
                foreign.append(name)
            else:
                found[place] = name
            if not self._fit and f"{name}#letterbox" not in self._file.files:
                raise DataError(
                    f"predictions '{self._path}' do not say how images were brought to the input; add 'letterbox' "
                    f"({', '.join(FITS)}), or '{name}#letterbox' with left, top, scale of x and scale of y"
                )
        images.refuse_foreign(foreign, self._path)
        return found

    def _try(self) -> None:
        """Refuse outputs of another model or in other units before any work, by the first images.

        Raises:
            DataError: They are.
        """
        for name in [self.places[index] for index in sorted(self.places)[:TRIED]]:
            where = f"predictions '{self._path}', '{name}'"
            try:
                found, decoded, layout = self._selected(name)
            except (TargetError, ArtifactError) as exc:
                raise DataError(
                    f"{where}: {exc}; outputs of another model, or of another layout than '{self._layout.value}'"
                ) from exc
            task = spec_of(self.info.task)
            scores = task.output_parts(decoded, layout, self.info)["scores"]
            if scores.size and (scores.min() < -ROUNDED or scores.max() > 1 + ROUNDED):
                worst = scores.flat[np.argmax(np.abs(scores - 0.5))]
                raise DataError(
                    f"{where}: a score of {worst:g}; scores are probabilities from 0 to 1: apply the sigmoid, and "
                    "dequantize"
                )
            reach = np.abs(found.xyxy).max(initial=0.0)
            if len(found) and not task.class_folders and reach <= FRACTIONS:
                height, width = self.info.imgsz
                raise DataError(
                    f"{where}: boxes look normalised (none reaches beyond {reach:.3g}); multiply x by the input's "
                    f"width ({width}) and y by its height ({height})"
                )

    def on(self, index: int, where: Letterbox) -> Detections:
        """See ``RecordedModel.on``."""
        task = spec_of(self.info.task)
        if index not in self.places:
            return task.to_input(empty(self.info, self._path), where)
        name = self.places[index]
        found, _, _ = self._selected(name)
        own = self._letterbox(name, where.original)
        # untouched where the letterboxes agree: there and back would round
        return found if own == where else task.to_input(task.to_original(found, own), where)

    def _selected(self, name: str) -> tuple[Detections, tuple[np.ndarray, ...], HeadLayout]:
        """One image's results in input pixels, and the outputs that they were selected from with their layout."""
        task = spec_of(self.info.task)
        outputs: list[np.ndarray] = []
        # counted up until one is missing: the order is what decoding goes by
        while f"{name}#{len(outputs)}" in self._file.files:
            outputs.append(np.ascontiguousarray(self._array(f"{name}#{len(outputs)}"), dtype=np.float32))
        decoded, layout = tuple(outputs), self._layout
        if layout is HeadLayout.RAW:
            decoded, layout = task.decode_raw(decoded, self.info), self.info.layout
        # validation's own thresholds; an end-to-end head may return more than they allow
        selection = Selection(max_det=max(Selection.max_det, self.info.max_det))
        return task.select(decoded, layout, self.info, selection), decoded, layout

    def _letterbox(self, name: str, original: tuple[int, int]) -> Letterbox:
        imgsz = self.info.imgsz
        if self._fit == "ultralytics":
            return place(original, imgsz)
        gain = min(imgsz[0] / original[0], imgsz[1] / original[1])
        left, top, x, y = 0.0, 0.0, gain, gain
        if self._fit == "stretch":
            y, x = imgsz[0] / original[0], imgsz[1] / original[1]
        elif not self._fit:
            left, top, x, y = self._stated(f"{name}#letterbox", (4,)).astype(float).tolist()
        extent = original[0] * y, original[1] * x
        if not (np.isfinite([left, top, *extent]).all() and min(extent) > 0):
            raise DataError(f"predictions '{self._path}', '{name}#letterbox': scales must be positive")
        # at least a pixel, of an image that is far longer than wide
        resized = max(round(extent[0]), 1), max(round(extent[1]), 1)
        return Letterbox(original, resized, extent, left, top, imgsz)  # type: ignore[arg-type]

    def _stated(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        array = self._array(key)
        if array.shape != shape or array.dtype.kind not in "iuf":
            raise DataError(f"predictions '{self._path}': '{key}' must be {shape[0]} numbers, got {array!r}")
        return array

    def _array(self, key: str) -> np.ndarray:
        if key not in self._file.files:
            raise DataError(f"predictions '{self._path}' have no '{key}'; see the guide on release pipelines")
        if self._sizes.get(key, 0) > MOST:
            raise DataError(f"predictions '{self._path}': '{key}' unpacks to more than {MOST >> 30} GB")
        try:
            found: Any = self._file[key]
        except (*UNREADABLE, MemoryError) as exc:
            raise DataError(f"predictions '{self._path}': '{key}' is damaged ({exc})") from exc
        return np.asarray(found)
