#!/usr/bin/env bash
# pycocotools: "ignore": 1 of an annotation is overwritten by its iscrowd, so objects to be ignored count as missed
#
# Expected:  an annotation with "ignore": 1 and "iscrowd": 0 is neither required nor punished: the evaluator has a field of this
#            name and a line that reads it from the annotation.
# Happens:   the next line replaces it by iscrowd. 100 of 300 objects are marked, the detector finds the 200 others exactly:
#            AP is 0.663 instead of 1.0, in pycocotools and in faster-coco-eval, the same as if nothing were marked. With
#            "iscrowd": 1 instead AP is 1.0, but a crowd is matched by intersection over the detection's own area.
# Matters:   data sets of pedestrians, traffic and aerial views have objects that nobody should be judged on, and converters
#            write them as "ignore". They load and evaluate without a word; the recall of every model has a ceiling, and
#            models differ by how many ignored objects they happen to find.
# Versions:  pycocotools 2.0.11, faster-coco-eval 1.8.0. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
cat > check.py <<'PY'
import contextlib, copy, io
from importlib.metadata import version

import faster_coco_eval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print({name: version(name) for name in ("pycocotools", "faster-coco-eval")})
EVALUATORS = {"pycocotools": (COCO, COCOeval), "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster)}
PICTURES = 10


def truth(flags):
    """Thirty objects a picture; the fields in flags are added to every third of them."""
    objects = []
    for i in range(30 * PICTURES):
        objects.append({"id": i + 1, "image_id": i // 30 + 1, "category_id": 1, "iscrowd": 0, "area": 1600.0,
                        "bbox": [i % 30 * 50.0, 20.0, 40.0, 40.0], **(flags if i % 3 == 0 else {})})
    images = [{"id": i + 1, "width": 1500, "height": 100, "file_name": f"{i}.jpg"} for i in range(PICTURES)]
    return {"images": images, "categories": [{"id": 1, "name": "thing"}], "annotations": objects}


def precision(name, flags):
    data = truth(flags)
    found = [{"image_id": o["image_id"], "category_id": 1, "bbox": o["bbox"], "score": 0.9 - 0.001 * i}
             for i, o in enumerate(data["annotations"]) if i % 3]
    dataset, evaluator = EVALUATORS[name]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = dataset()
        coco.dataset = copy.deepcopy(data)
        coco.createIndex()
        run = evaluator(coco, coco.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 3)


same = True
for name in EVALUATORS:
    seen = [precision(name, flags) for flags in ({}, {"ignore": 1}, {"iscrowd": 1})]
    print(f"{name:16s} AP with nothing marked {seen[0]}, with ignore {seen[1]}, with iscrowd {seen[2]}")
    same &= seen == [0.663, 0.663, 1.0]
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
