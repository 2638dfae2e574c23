#!/usr/bin/env bash
# labelformat: the COCO files that it writes have no annotation ids, so pycocotools refuses them, and crowds become objects
#
# Expected:  `labelformat convert` from COCO or YOLO to COCO gives a file that COCO's own reader opens, and a region with "iscrowd": 1 stays
#            one, as it does in the same tool's conversion of instance segmentation.
# Happens:   annotations get image_id, category_id and bbox; no "id", "area" or "iscrowd". COCO(file) of pycocotools and of faster-coco-eval
#            ends in KeyError: 'id'. Converting masks writes "iscrowd", and no ids either. Once ids are added by hand, the nine objects
#            found exactly and one crowd region give AP 0.901 instead of 1.0, since the crowd counts as an object that was missed.
# Matters:   a converter is asked for COCO mostly in order to be scored by pycocotools. The obvious repair, numbering the annotations,
#            makes the error go away and leaves figures that are wrong wherever there are crowds.
# Versions:  labelformat 0.1.17, pycocotools 2.0.11, faster-coco-eval 1.8.0. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile labelformat==0.1.17 pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
cat > check.py <<'PY'
import contextlib
import io
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import faster_coco_eval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print({name: version(name) for name in ("labelformat", "pycocotools", "faster-coco-eval")})
OBJECTS, WIDTH, HEIGHT = 9, 1000, 400
images = [{"id": 1, "file_name": "1.jpg", "width": WIDTH, "height": HEIGHT}]
annotations = []
for i in range(OBJECTS + 1):
    crowd = i == OBJECTS
    x, y, w, h = (0, 200, WIDTH, 200) if crowd else (i * 100, 20, 60, 120)
    # Run lengths go down the columns: 200 rows without, 200 rows with the crowd.
    outline = {"size": [HEIGHT, WIDTH], "counts": [200] * (2 * WIDTH)} if crowd else [[x, y, x + w, y, x + w, y + h, x, y + h]]
    annotations.append({"id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": int(crowd), "bbox": [x, y, w, h], "area": w * h, "segmentation": outline})
truth = {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": annotations}
found = [{"image_id": 1, "category_id": 1, "bbox": a["bbox"], "score": 0.9} for a in annotations if not a["iscrowd"]]
Path("truth.json").write_text(json.dumps(truth))
Path("found.json").write_text(json.dumps(found))


def converted(task):
    command = [str(Path(sys.executable).with_name("labelformat")), "convert", "--task", task, "--input-format", "coco", "--input-file", "truth.json"]
    subprocess.run([*command, "--output-format", "coco", "--output-file", f"{task}.json"], check=True, stdout=subprocess.DEVNULL)
    return json.loads(Path(f"{task}.json").read_text())


def opened(path):
    """What the two readers say of a file."""
    said = []
    for reader in COCO, faster_coco_eval.COCO:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                reader(path)
            said.append("opens")
        except KeyError as error:
            said.append(f"KeyError {error}")
    return said


def ap(path):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
        run = COCOeval(coco, coco.loadRes("found.json"), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 3)


same = opened("truth.json") == ["opens", "opens"] and ap("truth.json") == 1.0
for task in "object-detection", "instance-segmentation":
    file = converted(task)
    keys = sorted(file["annotations"][0])
    crowds = sum(bool(a.get("iscrowd")) for a in file["annotations"])
    said = opened(f"{task}.json")
    print(f"{task:21s} annotations have {keys}, {crowds} of 1 crowd; pycocotools and faster-coco-eval: {said}")
    same &= said == ["KeyError 'id'"] * 2 and "area" not in keys and crowds == (task != "object-detection")
    if task == "object-detection":
        for number, annotation in enumerate(file["annotations"], 1):
            annotation.update(id=number, area=annotation["bbox"][2] * annotation["bbox"][3], iscrowd=annotation.get("iscrowd", 0))
        Path("numbered.json").write_text(json.dumps(file))
        print(f"    with ids: AP {ap('numbered.json')}, of the file it was made from {ap('truth.json')}")
        same &= ap("numbered.json") == 0.901
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
