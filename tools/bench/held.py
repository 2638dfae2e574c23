"""Part of the train split held back to choose the best epoch, so that the val split stays unseen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from yoloquant.data.dataset import load_yaml, split_paths
from yoloquant.data.image_files import list_images


def held_out(data: str, folder: Path, count: int) -> Path:
    """Write a data yaml whose train and val splits both come from the train split of another.

    Args:
        data: The data yaml.
        folder: Where the yaml and its two lists are written.
        count: Images held back as ``val``, chosen by the hashes of their names.

    Returns:
        The yaml.
    """
    file, content = load_yaml(data)
    images = list_images(split_paths(content, file, "train"), data)
    order = sorted(images, key=lambda p: hashlib.sha256(p.name.encode()).digest())
    folder.mkdir(parents=True, exist_ok=True)
    for name, paths in (("train", order[count:]), ("val", order[:count])):
        text = "".join(f"{p.resolve()}\n" for p in sorted(paths))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    kept = {key: content[key] for key in ("names", "kpt_shape", "flip_idx") if key in content}
    described = {"path": str(folder.resolve()), "train": "train.txt", "val": "val.txt", **kept}
    target = folder / "data.yaml"
    target.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    return target
