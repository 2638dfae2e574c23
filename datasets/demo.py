"""The embedded demo set: drawn scenes with exact boxes, made from nothing but a seed, and written to disk once.

Six classes of drawn objects (cone, mug, bottle, fish, house, ball) stand on textured backgrounds among unlabelled
clutter, partly hidden, under uneven light, with shadows, blur and sensor noise. On request they lie at any angle, as
seen from above, and labels are rotated boxes. Every scene depends only on
``(seed, split, index)``, so the first 128 validation images are the same in a set of 128 and in one of 1000.

Pixels repeat exactly from run to run and from machine to machine: random numbers come from
``numpy.random.RandomState`` (its stream is frozen, NumPy NEP 19), shapes are filled from fixed-point vertices,
resampling and blurring use OpenCV's bit-exact 8-bit kernels, and images are stored as PNG, so that no JPEG decoder
comes between the drawing and the pixels. Checked alike with OpenCV 4.11 and 5.0; earlier ones fill the borders of
polygons differently, which moves some edges by half a pixel.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from .demo_scene import SPLITS, draw_scene, rotated_rows
from .demo_shapes import CLASS_NAMES

__all__ = ["CLASS_NAMES", "GENERATOR_VERSION", "write_demo_set"]

GENERATOR_VERSION = 1
"""To be raised whenever a change of the drawing code changes a pixel or a label."""

_STALE_S = 3600.0  # a work folder older than this was left behind by a killed run


def _check_parameters(parameters: dict[str, int]) -> None:
    limits = {"train": (1, 100_000), "val": (1, 100_000), "imgsz": (64, 2048), "seed": (0, 2**32 - 1)}
    for name, (low, high) in limits.items():
        if not low <= parameters[name] <= high:
            raise ValueError(f"{name}={parameters[name]} is outside {low}..{high}; choose a value in that range")
    if parameters["imgsz"] % 32:
        raise ValueError(f"imgsz={parameters['imgsz']} is not a multiple of 32; choose for example 320 or 640")


def _is_complete(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder's manifest asks for the same set and every file it lists is there in full."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = manifest.pop("files")
        sizes = {name: (folder / name).stat().st_size for name in files}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return bool(manifest == wanted and sizes == files)


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but a demo set."""
    if not folder.exists():
        return
    ours = {"images", "labels", "demo.yaml", "manifest.json"}
    if not folder.is_dir() or {entry.name for entry in folder.iterdir()} - ours:
        raise FileExistsError(f"{folder} exists and is not a demo set; name a new or an empty folder")


def _write_split(root: Path, split: str, count: int, *, imgsz: int, seed: int, rotated: bool) -> None:
    images, labels = root / "images" / split, root / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for index in range(count):
        scene = draw_scene(seed, split, index, imgsz, turned=rotated)
        name = f"{split}_{index:05d}"
        encoded = cv2.imencode(".png", scene.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
        (images / f"{name}.png").write_bytes(encoded.tobytes())
        labelled = rotated_rows(scene) if rotated else scene.labels
        rows = (f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) for row in labelled)
        (labels / f"{name}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _remove_leftovers(parent: Path, prefix: str) -> None:
    """Delete the work folders of runs that were killed long ago; a younger one may belong to a run in progress."""
    for leftover in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _STALE_S:
                shutil.rmtree(leftover)


def _swap_in(work: Path, folder: Path) -> None:
    """Put the finished set in place with renames, so that no reader ever sees half of it."""
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f"{work.name}-old-", dir=folder.parent))
        os.replace(folder, old / "set")
        os.replace(work, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(work, folder)


def write_demo_set(
    folder: Path, *, train: int = 128, val: int = 128, imgsz: int = 320, seed: int = 0, rotated: bool = False
) -> Path:
    """Write the demo set in the layout Ultralytics reads, unless the folder already holds exactly this set.

    The set is drawn into a work folder beside the target, which is renamed when it is complete. A set with other
    parameters, from another version of the generator or with files missing is replaced.

    Args:
        folder: Where images/, labels/, demo.yaml and manifest.json go.
        train: Number of training images.
        val: Number of validation images.
        imgsz: Side of the square images in pixels, a multiple of 32.
        seed: Seed of the set.
        rotated: Whether objects lie at any angle and labels are rotated boxes, class and four corners.

    Returns:
        The path of demo.yaml. It names no absolute path, so the folder can be moved.

    Raises:
        ValueError: If a number is out of range.
        FileExistsError: If the folder exists and holds something else.
        OSError: If the set cannot be written.
    """
    parameters = {"train": train, "val": val, "imgsz": imgsz, "seed": seed}
    _check_parameters(parameters)
    wanted: dict[str, Any] = {"generator": "yoloquant demo set", "version": GENERATOR_VERSION, **parameters}
    if rotated:
        wanted["labels"] = "rotated boxes"
    folder = Path(folder).absolute()
    if _is_complete(folder, wanted):
        return folder / "demo.yaml"
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}-work-"
    _remove_leftovers(folder.parent, prefix)
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        for split in SPLITS:
            _write_split(work, split, parameters[split], imgsz=imgsz, seed=seed, rotated=rotated)
        names = "".join(f"  {index}: {name}\n" for index, name in enumerate(CLASS_NAMES))
        (work / "demo.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}", encoding="utf-8")
        files = {p.relative_to(work).as_posix(): p.stat().st_size for p in sorted(work.rglob("*")) if p.is_file()}
        (work / "manifest.json").write_text(json.dumps({**wanted, "files": files}, indent=1), encoding="utf-8")
        work.chmod(0o755)  # mkdtemp makes it private
        _swap_in(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder / "demo.yaml"
