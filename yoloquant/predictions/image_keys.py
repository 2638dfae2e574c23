"""Finding the image that a prediction is about: by its file name, its name without the suffix, or its number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..errors import DataError


class ImageKeys:
    """The images of a data set, by what prediction files call them.

    Args:
        images: Every image of the data set; predictions on others are foreign.
        scored: How many of them, from the first, are scored.
        ids: File name of each image id, where an annotation file states it.
    """

    def __init__(self, images: Sequence[Path], scored: int, ids: Mapping[str, str] | None = None) -> None:
        self.images, self.scored = tuple(images), scored
        self._ids = dict(ids or {})
        self._places: dict[str, list[int]] = {}
        for index, path in enumerate(images):
            # the number too: COCO's image_id 397133 is 000000397133.jpg, and Ultralytics writes the number
            for key in {path.name, path.stem, _number(path.stem)}:
                self._places.setdefault(key, []).append(index)

    def find(self, key: object) -> int | None:
        """Place of an image.

        Args:
            key: A file name, with or without folders and suffix, or an image id.

        Returns:
            Its place; None if there is no such image.

        Raises:
            DataError: Several images are called so.
        """
        text = self._ids.get(str(key), str(key))
        # predictions may come from Windows; their folders are another machine's
        name = PurePosixPath(text.replace("\\", "/")).name
        places = self._places.get(name) or self._places.get(_number(name)) or []
        if len(places) > 1:
            # of namesakes the one in the folder that the prediction names
            places = [i for i in places if self.images[i].as_posix().endswith(text.replace("\\", "/"))] or places
        if len(places) > 1:
            two = " and ".join(f"'{self.images[i]}'" for i in places[:2])
            raise DataError(
                f"a prediction is about '{key}', and the data hold {len(places)} images of that name ({two}); give "
                "images names of their own, or name them with their folders in the predictions"
            )
        return places[0] if places else None

    def refuse_foreign(self, foreign: Iterable[object], file: Path) -> None:
        """Raise DataError if there are predictions on images that the data do not hold."""
        keys = list(dict.fromkeys(map(str, foreign)))
        if keys:
            raise DataError(
                f"predictions '{file}' are about {len(keys)} images that the data do not hold (the first is "
                f"'{keys[0]}'; an image of the data is '{self.images[0].name}'); predict on the images that are scored"
                ", or say with annotations=<instances.json> which file an image id stands for"
            )

    def missing(self, known: Iterable[int]) -> list[int]:
        """Places of scored images that are not among the known ones."""
        there = set(known)
        return [index for index in range(self.scored) if index not in there]


def _number(text: str) -> str:
    """A number without leading zeros; the text itself if it is none."""
    # ASCII and short: int() takes digits of every script, and numbers too long to be an id
    return str(int(text)) if text.isdecimal() and text.isascii() and len(text) < 20 else text
