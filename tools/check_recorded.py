"""One export, scored directly, and by predictions that our, Ultralytics' and a hand-written program recorded.

Usage: python tools/check_recorded.py model=best.pt export=best_exports/best_int8.onnx data=set.yaml work=folder

- ``predict output=found.json`` with what mAP counts (``conf=0.001 multi_label=true``);
- ``val(save_json=True)`` of Ultralytics, of the same file;
- COCO results as somebody writes them by hand: COCO's plain keys, boxes of two decimals, scores of five;
- with ``bundle=`` (of the same export) and ``root=`` (``tools/make_device_root.py``) the bundle's own ``predict`` on
  emulated aarch64.

Every one goes through ``yoloquant validate predictions=``. mAP must agree with direct validation to ``tolerance``
(0.001), like with like: Ultralytics opens files as anybody's program does, so they are opened that way for its figure
(on x86 processors without VNNI ONNX Runtime's fastest kernels clamp sums, which ``validate`` and ``predict`` keep it
from), and what the bundle found is held against direct validation on aarch64, which prepares its pictures there, too.
``limit`` scores the first images only.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from options import parse_options

import yoloquant
from yoloquant import targets
from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import model_info
from yoloquant.bridge.val import label_paths
from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.judged_models import BASELINE
from yoloquant.evaluation.processors import AARCH64, NATIVE, launch
from yoloquant.evaluation.results import ValidationResult
from yoloquant.io import output_folder
from yoloquant.runtime.backends import BackendOptions
from yoloquant.runtime.core.bundle_manifest import read
from yoloquant.targets.exports import load_exports

DEFAULTS = {
    **{"model": "", "export": "", "data": "", "work": "check_recorded", "tolerance": "0.001", "limit": ""},
    **{"bundle": "", "root": ""},
}


def linked(images: ValidationSet, work: Path) -> Path:
    """A folder of exactly the images that are scored."""
    folder = work / "images"
    folder.mkdir(exist_ok=True)
    for image in images.images:
        link = folder / image.path.name
        if not link.exists():
            link.symlink_to(image.path.resolve())
    return folder


def by_predict(export: str, folder: Path, work: Path) -> Path:
    """What ``yoloquant predict`` writes."""
    out = work / "predict.json"
    yoloquant.predict(export, folder, output=str(out), conf=0.001, multi_label=True)
    return out


def by_bundle(bundle: str, root: str, folder: Path, work: Path) -> Path:
    """What the bundle's own ``predict`` writes on emulated aarch64."""
    place, out = Path(bundle).resolve(), (work / "bundle.json").resolve()
    start = launch(AARCH64, read(place).backend, root=root)
    words = [f"source={folder.resolve()}", f"output={out}", "conf=0.001", "multi_label=true", "threads=1"]
    subprocess.run(
        [*start.command, "-m", "yoloquant_runtime", "predict", *words],
        # A bundle holds no other file.
        env={**start.variables(place), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=work,
        check=True,
    )
    return out


def as_any_program(export: str, images: ValidationSet) -> float:
    """mAP50-95 of a file that is opened without the settings that only our runtime makes."""
    (exported,) = load_exports(export)
    runner = targets.get(exported.name).open(exported, BackendOptions(exact_sums=False))
    evaluation = evaluate({BASELINE: runner}, images, EvaluateOptions(baseline=BASELINE))
    accuracy = Comparer(evaluation, BootstrapOptions(replicates=2)).accuracy(BASELINE)
    assert accuracy is not None, "the data have labels"
    return accuracy.map50_95


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
    out = work / "ultralytics.json"
    shutil.copyfile(work / "ultralytics" / "predictions.json", out)
    return out


def scored(result: ValidationResult) -> dict[str, float]:
    """mAP50-95 of every row that has one."""
    return {row.target: row.accuracy.map50_95 for row in result.targets if row.accuracy is not None}


def main(arguments: Sequence[str]) -> int:
    """Print a table; 1 if one way differs by more than the tolerance."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    work = output_folder(options["work"])
    model = load_model(options["model"])
    info = model_info(model, model.resolve_imgsz())
    limit = int(options["limit"]) if options["limit"] else None
    images = ValidationSet.open(options["data"], info).for_classes(info.names).take(limit)
    (exported,) = load_exports(options["export"])
    folder, processors = linked(images, work), NATIVE
    files = [by_predict(options["export"], folder, work)]
    files += [by_hand(files[0], work), by_ultralytics(options["export"], images, exported.info.imgsz[0], work)]
    if options["bundle"]:
        files.append(by_bundle(options["bundle"], options["root"], folder, work))
        processors += f",{AARCH64}"
    result = yoloquant.validate(
        options["model"],
        options["export"],
        data=options["data"],
        limit=limit,
        predictions=",".join(map(str, files)),
        allow_missing=True,
        latency=False,
        memory=False,
        bootstrap=100,
        cpu=processors,
        cpu_root=options["root"] or None,
        output=work / "report",
    )
    found = scored(result)
    for row in result.targets:
        if row.error:
            print(f"{row.target}: {row.error}")
    here, there = exported.name, f"{exported.name}@{AARCH64}"
    found["as any program opens it"] = as_any_program(options["export"], images)
    pairs = {"predict": here, "hand": here, "ultralytics": "as any program opens it"}
    pairs.update({"bundle": there} if options["bundle"] else {})
    worst = 0.0
    print(f"{result.images} images; mAP50-95 of {here}: {found[here]:.5f}")
    for name, reference in pairs.items():
        row = f"predictions:{name}"
        far = found.get(row, float("inf")) - found.get(reference, 0.0)
        worst = max(worst, abs(far))
        print(f"{name}: {found.get(row, 0.0):.5f}, {far:+.5f} from {reference} ({found.get(reference, 0.0):.5f})")
    return int(worst > float(options["tolerance"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
