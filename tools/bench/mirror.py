"""A data set of links, so that Ultralytics writes its label caches there and not beside the user's images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import yaml

from yoloquant.bridge import val as host_val
from yoloquant.data.dataset import ValidationSet


def mirror(data: ValidationSet, folder: Path, kpt_shape: tuple[int, int] | None = None) -> Path:
    """Link images and labels into a folder and describe them.

    Args:
        data: The images that are scored.
        folder: Where to; rebuilt if its images are not exactly these.
        kpt_shape: Keypoints of an object and numbers of each, for a pose model.

    Returns:
        A data yaml for Ultralytics whose ``val`` split holds exactly these images. Its ``train`` split, which
        Ultralytics demands but neither export nor validation reads, is the same.
    """
    paths = [image.path for image in data.images]
    mark = folder / "data_sha256.txt"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != data.data_hash:
        shutil.rmtree(folder, ignore_errors=True)
        for kind, files in (("images", paths), ("labels", host_val.label_paths(paths))):
            place = folder / kind / "val"
            place.mkdir(parents=True)
            for file in files:
                if file.is_file():  # an image without objects may have no label file
                    _link(file, place / file.name)
        mark.write_text(data.data_hash, encoding="utf-8")
    described = folder / "data.yaml"
    content = {
        "path": str(folder.resolve()),
        "train": "images/val",
        "val": "images/val",
        "names": dict(enumerate(data.names)),
        # without it Ultralytics refuses to read keypoints
        **({} if kpt_shape is None else {"kpt_shape": list(kpt_shape)}),
    }
    described.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return described


def _link(source: Path, place: Path) -> None:
    try:
        os.symlink(source.resolve(), place)
    except OSError:  # file systems without links
        shutil.copyfile(source, place)
