"""Draw a reproducible, stratified subset of a data set.

    python tools/make_coco_subset.py data=coco.yaml split=val images=500 name=coco500_val2017 out=datasets

Writes ``<name>.txt`` (the images' paths, a list that Ultralytics reads), ``<name>.yaml`` (a data yaml whose val split
is that list) and ``<name>.json`` (a manifest: file names, sha256, box counts, seed). No image is copied. Images are
taken one by one, each time the one that brings the class frequencies of the subset closest to those of the whole set;
ties go to the image that comes first in an order shuffled by the seed: the same call gives the same subset everywhere.

Options (``key=value`` or ``--key value``): data (a data yaml or Ultralytics' name of one), split (val), images (256; 0
takes all), seed (0), name (<data>_<split>_<images>), out (.), source (a remark for the manifest).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.options import parse_options
from yoloquant.data.dataset import LabelledImage, ValidationSet
from yoloquant.data.manifest import ManifestImage, SubsetManifest
from yoloquant.errors import YoloquantError
from yoloquant.runtime.core.folder_check import file_sha256

DEFAULTS = {"data": "coco8.yaml", "split": "val", "images": "256", "seed": "0", "name": "", "out": ".", "source": ""}


def choose(counts: np.ndarray, size: int, seed: int) -> list[int]:
    """Choose images whose classes are distributed like those of the whole set.

    Greedy: each step takes the image that leaves the smallest squared distance between the subset's box counts and the
    whole set's, scaled to the subset's size. Every class weighs the same, in units of its own expected count; images
    without objects are one more class.

    Args:
        counts: Boxes per image and class, (images, classes).
        size: Number of images to choose.
        seed: Orders images that are equally good.

    Returns:
        Indices in ascending order.
    """
    order = np.random.default_rng(seed).permutation(len(counts))
    table = np.concatenate([counts, (counts.sum(axis=1) == 0)[:, None]], axis=1).astype(np.float64)[order]
    per_image = table.mean(axis=0)
    scale = 1 / np.maximum(per_image * size, 1.0)
    have = np.zeros(table.shape[1])
    free = np.ones(len(table), dtype=bool)
    chosen = []
    for step in range(1, size + 1):
        distance = (((have + table - per_image * step) * scale) ** 2).sum(axis=1)
        best = int(np.argmin(np.where(free, distance, np.inf)))
        chosen.append(best)
        free[best] = False
        have += table[best]
    return sorted(order[chosen].tolist())


def class_counts(data: ValidationSet) -> np.ndarray:
    """Boxes per image and class, (images, classes)."""
    return np.stack([np.bincount(image.classes, minlength=len(data.names)) for image in data.images])


def write_subset(images: Sequence[LabelledImage], names: Sequence[str], manifest: SubsetManifest, folder: Path) -> None:
    """Write list, data yaml and manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = manifest.name
    content = {"path": str(folder.resolve()), "train": f"{stem}.txt", "val": f"{stem}.txt"}
    content |= {"names": dict(enumerate(names)), "manifest": f"{stem}.json"}
    head = "# The train split is only there because data yamls must have one: it is the same list. Never train on it.\n"
    _write(folder / f"{stem}.txt", "\n".join(str(image.path) for image in images) + "\n")
    _write(folder / f"{stem}.yaml", head + yaml.safe_dump(content, sort_keys=False))
    _write(folder / f"{stem}.json", json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main(arguments: Sequence[str]) -> int:
    """Draw the subset."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    try:
        data = ValidationSet.from_yaml(options["data"], split=options["split"])
        size = int(options["images"]) or len(data)
        if not 0 < size <= len(data):
            print(f"images={size}: the split has {len(data)}", file=sys.stderr)
            return 2
    except (YoloquantError, ValueError) as exc:
        print(exc, file=sys.stderr)
        return 2
    chosen = [data.images[i] for i in choose(class_counts(data), size, int(options["seed"]))]
    entries = tuple(
        ManifestImage(file=image.path.name, sha256=file_sha256(image.path), boxes=len(image.classes))
        for image in chosen
    )
    manifest = SubsetManifest(
        name=options["name"] or f"{Path(options['data']).stem}_{options['split']}_{size}",
        source=options["source"] or f"{Path(options['data']).name}, split {options['split']}",
        seed=int(options["seed"]),
        images=entries,
    )
    write_subset(chosen, data.names, manifest, Path(options["out"]))
    print(f"{manifest.name}: {len(entries)} images, {sum(e.boxes for e in entries)} boxes in {options['out']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
