"""A YOLO data set written in other formats."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml


def labelled(data: Path, split: str) -> list[tuple[Path, tuple[int, int], list[list[float]]]]:
    """Images of a split with their size (height, width) and label lines as numbers."""
    root = Path(yaml.safe_load(data.read_text()).get("path", data.parent))
    found = []
    for image in sorted((root / "images" / split).iterdir()):
        lines = (root / "labels" / split / f"{image.stem}.txt").read_text().splitlines()
        height, width = cv2.imread(str(image)).shape[:2]
        found.append((image, (height, width), [[float(w) for w in line.split()] for line in lines]))
    return found


def corners(line: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom in pixels."""
    _, x, y, width, height = line[:5]
    return (
        (x - width / 2) * size[1],
        (y - height / 2) * size[0],
        (x + width / 2) * size[1],
        (y + height / 2) * size[0],
    )


def coco(data: Path, split: str, ids: Sequence[int]) -> dict[str, Any]:
    """A split as COCO JSON; class i has category ``ids[i]``, boxes alone."""
    names = yaml.safe_load(data.read_text())["names"]
    images, annotations = [], []
    for number, (image, size, lines) in enumerate(labelled(data, split)):
        images.append({"id": number, "file_name": image.name, "height": size[0], "width": size[1]})
        for line in lines:
            left, top, right, bottom = corners(line, size)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": ids[int(line[0])],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": ids[i], "name": name} for i, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(data: Path, out: Path, ids: Sequence[int] = (3, 7, 90)) -> Path:
    """Both splits in COCO's own layout; returns the folder."""
    (out / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        os.symlink(data.parent / "images" / split, out / f"{split}2017")
        (out / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(coco(data, split, ids)))
    return out


def write_voc(data: Path, out: Path) -> Path:
    """Both splits as Pascal VOC; returns the folder."""
    names = yaml.safe_load(data.read_text())["names"]
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (out / folder).mkdir(parents=True)
    for split in ("train", "val"):
        stems = []
        for image, size, lines in labelled(data, split):
            stem = f"{split}_{image.stem}"
            stems.append(stem)
            os.symlink(image, out / "JPEGImages" / f"{stem}{image.suffix}")
            objects = "".join(
                f"<object><name>{names[int(line[0])]}</name><difficult>0</difficult><bndbox>"
                + "".join(
                    f"<{side}>{value + 1!r}</{side}>"
                    for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners(line, size), strict=True)
                )
                + "</bndbox></object>"
                for line in lines
            )
            (out / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{stem}{image.suffix}</filename><size><width>{size[1]}</width>"
                f"<height>{size[0]}</height><depth>3</depth></size>{objects}</annotation>"
            )
        (out / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return out


def square(label: int, side: int = 40) -> np.ndarray:
    """A small picture of its own colour."""
    return np.full((side, side, 3), 40 * label + 20, np.uint8)
