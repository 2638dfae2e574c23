#!/usr/bin/env bash
# pycocotools and faster-coco-eval: the object whose annotation id is 0 can never be detected
#
# Expected:  annotation ids only have to be unique; numbering from 0 (enumerate) is as good as from 1.
# Happens:   the matcher stores the matched annotation's id and treats 0 as "no match". A perfect detection of that object
#            counts as a false positive: ten perfect detections of ten objects give AP 0.81, one of one AP 0. The
#            faster reimplementation reproduces the number (and warns about it); pycocotools says nothing.
# Matters:   label converters that count from 0 cost every detector the same object, and on the few dozen images that a
#            device check uses this is percents; a data set evaluated with Ultralytics' own metrics does not show it.
# Versions:  pycocotools 2.0.11, faster-coco-eval 1.8.0. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
cat > check.py <<'PY'
import contextlib, io
from importlib.metadata import version

import faster_coco_eval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print({name: version(name) for name in ("pycocotools", "faster-coco-eval")})
BOX = [10.0, 10.0, 40.0, 40.0]


def average_precision(count, first_id, coco_class, eval_class):
    data = {"images": [{"id": i, "width": 64, "height": 64} for i in range(count)], "categories": [{"id": 1, "name": "thing"}],
            "annotations": [{"id": first_id + i, "image_id": i, "category_id": 1, "bbox": BOX, "area": 1600.0, "iscrowd": 0}
                            for i in range(count)]}
    found = [{"image_id": i, "category_id": 1, "bbox": BOX, "score": 0.9 - 0.01 * i} for i in range(count)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class()
        truth.dataset = data
        truth.createIndex()
        run = eval_class(truth, truth.loadRes(found), "bbox")
        run.evaluate(), run.accumulate(), run.summarize()
    return round(float(run.stats[0]), 4)


seen = {}
for name, classes in {"pycocotools": (COCO, COCOeval), "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster)}.items():
    for count in (1, 10):
        seen[name, count] = [average_precision(count, first, *classes) for first in (1, 0)]
        print(f"{name:17s} {count:2d} objects, all found exactly: AP with ids from 1: {seen[name, count][0]}, from 0: {seen[name, count][1]}")
same = all(row[0] == 1.0 and row[1] == (0.0 if count == 1 else row[1]) and row[1] <= 0.9 for (_, count), row in seen.items())
same = same and seen["pycocotools", 10] == seen["faster-coco-eval", 10]
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
