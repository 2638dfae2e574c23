"""One export, scored directly, and by predictions that our, Ultralytics' and a hand-written program recorded.

Usage: python tools/check_recorded.py model=best.pt export=best_exports/best_int8.onnx data=set.yaml work=folder

- ``predict output=found.json`` with what mAP counts (``conf=0.001 multi_label=true``);
- ``val(save_json=True)`` of Ultralytics, of the same file;
- COCO results as somebody writes them by hand: COCO's plain keys, boxes of two decimals, scores of five.

Every one goes through ``yoloquant validate predictions=``. mAP must agree with direct validation to
``tolerance`` (0.001). ``limit`` scores the first images only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from options import parse_options

import yoloquant
from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import model_info
from yoloquant.bridge.val import label_paths
from yoloquant.data.dataset import ValidationSet
from yoloquant.io import output_folder

DEFAULTS = {"model": "", "export": "", "data": "", "work": "check_recorded", "tolerance": "0.001", "limit": ""}


def by_predict(export: str, images: ValidationSet, work: Path) -> Path:
    """What ``yoloquant predict`` writes."""
    folder = work / "images"
    folder.mkdir(exist_ok=True)
    for image in images.images:
        link = folder / image.path.name
        if not link.exists():
            link.symlink_to(image.path.resolve())
    out = work / "predict.json"
    yoloquant.predict(export, folder, output=str(out), conf=0.001, multi_label=True)
    return out


def by_hand(found: Path, work: Path) -> Path:
    """The same detections as COCO's keys alone, rounded as people round."""
    rows = json.loads(found.read_text(encoding="utf-8"))
    plain = [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "bbox": [round(value, 2) for value in row["bbox"]],
            "score": round(row["score"], 5),
        }
        for row in rows
    ]
    out = work / "hand.json"
    out.write_text(json.dumps(plain), encoding="utf-8")
    return out


def by_ultralytics(export: str, images: ValidationSet, imgsz: int, work: Path) -> Path:
    """What Ultralytics' own validation writes of the same file; on links, since it writes a cache beside labels."""
    import yaml
    from ultralytics import YOLO

    paths = [image.path for image in images.images]
    for kind, files in (("images", paths), ("labels", label_paths(paths))):
        folder = output_folder(work / "links" / kind / "val")
        for file in files:
            if file.is_file() and not (folder / file.name).exists():
                (folder / file.name).symlink_to(file.resolve())
    root = str((work / "links").resolve())
    content = {"path": root, "train": "images/val", "val": "images/val", "names": dict(enumerate(images.names))}
    (work / "links" / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    YOLO(export, task="detect").val(
        data=str(work / "links" / "data.yaml"),
        imgsz=imgsz,
        batch=1,
        save_json=True,
        rect=False,
        plots=False,
        workers=0,
        verbose=False,
        project=str(work.resolve()),
        name="ultralytics",
        exist_ok=True,
    )
    return work / "ultralytics" / "predictions.json"


def main(arguments: Sequence[str]) -> int:
    """Print a table; 1 if one way differs by more than the tolerance."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    work = output_folder(options["work"])
    model = load_model(options["model"])
    info = model_info(model, model.resolve_imgsz())
    limit = int(options["limit"]) if options["limit"] else None
    images = ValidationSet.open(options["data"], info).for_classes(info.names).take(limit)
    ours = by_predict(options["export"], images, work)
    theirs = by_ultralytics(options["export"], images, info.imgsz[0], work)
    files = {"predict": ours, "hand": by_hand(ours, work), "ultralytics": theirs}
    result = yoloquant.validate(
        options["model"],
        options["export"],
        data=options["data"],
        limit=limit,
        predictions=",".join(map(str, files.values())),
        allow_missing=True,
        latency=False,
        memory=False,
        bootstrap=100,
        output=work / "report",
    )
    direct, *others = result.targets
    assert direct.accuracy is not None
    worst = 0.0
    print(f"{direct.target}: mAP50-95 {direct.accuracy.map50_95:.5f} directly, {result.images} images")
    for row in others:
        if row.accuracy is None:
            print(f"{row.target}: {row.error}")
            worst = 1.0
            continue
        far = row.accuracy.map50_95 - direct.accuracy.map50_95
        worst = max(worst, abs(far))
        print(f"{row.target}: mAP50-95 {row.accuracy.map50_95:.5f}, {far:+.5f}")
    return int(worst > float(options["tolerance"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
