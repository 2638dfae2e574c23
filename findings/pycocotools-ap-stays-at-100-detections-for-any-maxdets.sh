#!/usr/bin/env bash
# pycocotools: params.maxDets = [10, 100, 1000] moves five of the six AP figures to 1000 detections, the first stays at 100
#
# Expected:  the last entry of maxDets applies to all six AP figures, as it does with the default [1, 10, 100]; AP over all
#            areas then lies between the figures of its areas.
# Happens:   stats[0], the AP that everyone quotes, is computed at 100 detections an image whatever maxDets says, AP50, AP75 and
#            the figures by area at the last entry. On 300 objects, all found exactly, AP is 0.337 while AP50, AP75 and the
#            AP of each area are 1.0. Without 100 among the three entries AP is -1. faster-coco-eval gives 1.0 in both cases,
#            and the same as pycocotools at the default.
# Matters:   crowded pictures (VisDrone, DOTA, SKU-110K, max_det=300 of a YOLO) are scored with a longer list on purpose. The AP
#            of such a report is of another list than the rest; an FP32 and an INT8 model whose detections differ below
#            rank 100 look equal, and swapping one evaluator for the other triples the figure.
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
SIDES = (20.0, 50.0, 120.0)  # small, medium and large by COCO's areas
objects = []
for i in range(300):
    side = SIDES[i % 3]
    objects.append({"id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": side * side,
                    "bbox": [i % 20 * 130.0, i // 20 * 130.0, side, side]})
truth = {"images": [{"id": 1, "width": 2600, "height": 1950, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "thing"}],
         "annotations": objects}
found = [{"image_id": 1, "category_id": 1, "bbox": o["bbox"], "score": 0.9 - 0.001 * i} for i, o in enumerate(objects)]


def precisions(name, limits):
    dataset, evaluator = EVALUATORS[name]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = dataset()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        run = evaluator(coco, coco.loadRes(copy.deepcopy(found)), "bbox")
        run.params.maxDets = limits
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [round(float(value), 3) for value in run.stats[:6]]


seen = {}
print("AP, AP50, AP75, small, medium, large")
for name in EVALUATORS:
    for limits in ([1, 10, 100], [10, 100, 1000], [1, 10, 1000]):
        seen[name, limits[1], limits[2]] = precisions(name, limits)
        print(f"{name:16s} maxDets {limits!s:16s} {seen[name, limits[1], limits[2]]}")
same = seen["pycocotools", 10, 100] == seen["faster-coco-eval", 10, 100]
same &= seen["pycocotools", 100, 1000] == [0.337, 1, 1, 1, 1, 1] and seen["pycocotools", 10, 1000] == [-1, 1, 1, 1, 1, 1]
same &= seen["faster-coco-eval", 100, 1000] == seen["faster-coco-eval", 10, 1000] == [1] * 6
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
