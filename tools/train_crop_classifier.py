"""Make a classifier and its data from a detection data set, where none of a second kind is at hand.

    python tools/train_crop_classifier.py data=coco256.yaml model=yolov8n.pt to=yolov8n-cls.yaml out=crops

Labelled objects are cut out as squares into ``<out>/train/<class>/`` and ``<out>/val/<class>/``, each split from the
images of that split. The classes are those that the rarer of the two splits has most objects of. The network of
``to=`` starts from the layers that it shares with the detector ``model=``, is trained on them for a few epochs, and
written to ``<out>/<name of to>-crops.pt``. Its own level says little, since crops are few; it stands for a classifier
of another architecture, input size and kind of image than the official ones.

Options (``key=value`` or ``--key value``): data (data yamls of the same classes, separated by commas), model (a
detection checkpoint), to (Ultralytics' description of a classifier), out (an empty or new folder), classes (12), most
(objects of a class and split, 60), least (longer side of an object in pixels, 32), margin (share of that side added,
0.1), imgsz (96), epochs (8), seed (0), threads (1).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"

import numpy as np

from tools.options import parse_options, positive
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import YoloquantError

DEFAULTS = {
    **{"data": "coco128.yaml", "model": "yolov8n.pt", "to": "yolov8n-cls.yaml", "out": "crops", "classes": "12"},
    **{"most": "60", "least": "32", "margin": "0.1", "imgsz": "96", "epochs": "8", "seed": "0", "threads": "1"},
}
SPLITS = ("train", "val")
QUALITY = 95
"""Of the crops as JPEG: they are compressed a second time, which must not be what is learned."""


@dataclass(frozen=True)
class Found:
    """A labelled object.

    Attributes:
        source: Number of its data set, among those that were named.
        index: Its image in that set.
        label: Its class.
        square: Left, top, right and bottom of what is cut out, in pixels.
        name: File name of the crop.
    """

    source: int
    index: int
    label: int
    square: tuple[int, int, int, int]
    name: str


def square_of(box: np.ndarray, size: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """The square around a box, as much of it as the image has.

    Args:
        box: Centre and sides, as fractions of the image.
        size: Height and width of the image.
        margin: Share of the longer side that is added to it.

    Returns:
        Left, top, right and bottom in pixels.
    """
    height, width = size
    x, y, side = box[0] * width, box[1] * height, max(box[2] * width, box[3] * height) * (1 + margin)
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    return left, top, int(min(width, x + side / 2)), int(min(height, y + side / 2))


def chosen_classes(counts: Sequence[Counter[int]], number: int) -> list[int]:
    """The classes whose rarest split has most objects; ties go to the lower index.

    Args:
        counts: Objects by class, for each split.
        number: How many classes.

    Raises:
        SystemExit: So many classes have no object in every split.
    """
    least = {label: min(count[label] for count in counts) for label in sorted(counts[0])}
    usable = [label for label in sorted(least, key=lambda label: (-least[label], label)) if least[label]]
    if len(usable) < number:
        raise SystemExit(f"classes={number}: only {len(usable)} have objects that are large enough in every split")
    return usable[:number]


def objects_of(data: ValidationSet, source: int, least: int, margin: float) -> Iterator[Found]:
    """The objects of one split that are large enough."""
    for index, image in enumerate(data.images):
        if not len(image.classes):
            continue
        height, width = data.read(index).shape[:2]
        for number, (label, box) in enumerate(zip(image.classes.tolist(), image.boxes, strict=True)):
            if max(box[2] * width, box[3] * height) >= least:
                square = square_of(box, (height, width), margin)
                yield Found(source, index, label, square, f"{source}_{image.path.stem}_{number}.jpg")


def cut(options: dict[str, str], out: Path) -> list[str]:
    """Cut the crops out.

    Args:
        options: See the module.
        out: Folder of the splits.

    Returns:
        What was written, one line for each split.

    Raises:
        DataError: A data set is not usable.
        SystemExit: The sets name other classes, or there are too few objects.
    """
    import cv2

    sources = options["data"].split(",")
    sets = {split: [ValidationSet.from_yaml(source, split=split) for source in sources] for split in SPLITS}
    names = sets["val"][0].names
    other = next((s for s, data in zip(sources, sets["val"], strict=True) if data.names != names), None)
    if other is not None:
        raise SystemExit(f"data: '{other}' names other classes than '{sources[0]}'; give sets of the same classes")
    least, most, margin = positive(options["least"]), positive(options["most"]), float(options["margin"])
    objects = {
        split: [o for number, data in enumerate(found) for o in objects_of(data, number, least, margin)]
        for split, found in sets.items()
    }
    counts = [Counter(o.label for o in objects[split]) for split in SPLITS]
    classes = chosen_classes(counts, positive(options["classes"]))
    lines = []
    for split in SPLITS:
        taken: Counter[int] = Counter()
        for one in objects[split]:
            if one.label not in classes or taken[one.label] == most:
                continue
            taken[one.label] += 1
            left, top, right, bottom = one.square
            folder = out / split / re.sub(r"[^\w-]+", "_", names[one.label])
            folder.mkdir(parents=True, exist_ok=True)
            crop = sets[split][one.source].read(one.index)[top:bottom, left:right]
            cv2.imwrite(str(folder / one.name), crop, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        shown = ", ".join(f"{names[label]} {taken[label]}" for label in sorted(classes))
        lines.append(f"{split}: {taken.total()} crops of {len(classes)} classes ({shown})")
    return lines


def started(to: str, model: str) -> Any:
    """The classifier, with the layers that it shares with a detector.

    Raises:
        SystemExit: Less than half of it is shared, as by networks of other families or sizes.
    """
    from ultralytics import YOLO

    network = YOLO(to)
    source, target = YOLO(model).model.state_dict(), network.model.state_dict()
    shared = [name for name, value in target.items() if name in source and source[name].shape == value.shape]
    if 2 * len(shared) < len(target):
        raise SystemExit(
            f"'{to}' and '{model}' share {len(shared)} of {len(target)} tensors; give a classifier and a detector of "
            "one family and size"
        )
    print(f"{len(shared)} of {len(target)} tensors are the detector's")
    return network.load(model)


def train(options: dict[str, str], out: Path) -> Path:
    """Train on the crops, and keep the best epoch's checkpoint."""
    import torch

    network, threads = started(options["to"], options["model"]), positive(options["threads"])
    network.add_callback("on_pretrain_routine_end", lambda trainer: torch.set_num_threads(threads))
    network.train(
        data=str(out.resolve()),
        imgsz=positive(options["imgsz"]),
        epochs=positive(options["epochs"]),
        seed=int(options["seed"]),
        **{"batch": 16, "optimizer": "AdamW", "lr0": 0.001, "device": "cpu", "workers": 0, "amp": False},
        **{"plots": False, "verbose": False, "project": str(out.resolve()), "name": "training", "exist_ok": True},
    )
    path = out / f"{Path(options['to']).stem}-crops.pt"
    shutil.copyfile(network.trainer.best, path)
    return path


def main(arguments: Sequence[str]) -> int:
    """Cut, then train."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    out = Path(options["out"])
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        print(f"out='{out}' exists and is not an empty folder; other crops would be mixed with these", file=sys.stderr)
        return 2
    if not Path(options["model"]).is_file():  # Ultralytics would download it
        print(f"model='{options['model']}' does not exist; give a detection checkpoint", file=sys.stderr)
        return 2
    try:
        lines = cut(options, out)
    except YoloquantError as exc:
        print(exc, file=sys.stderr)
        return 2
    print("\n".join(lines))
    print(f"wrote {train(options, out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
