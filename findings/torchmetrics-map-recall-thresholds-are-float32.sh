#!/usr/bin/env bash
# torchmetrics: mAP differs from pycocotools although pycocotools computes it
#
# Expected:  MeanAveragePrecision(backend="pycocotools") hands the detections to pycocotools and returns its numbers.
# Happens:   its default thresholds come from a float32 torch.linspace. Of the 101 recall thresholds 36 lie a few 1e-9
#            above the decimal value, 4 of the 10 IoU thresholds too, others below: whether a curve that reaches a recall
#            such as 0.3 or 0.7 exactly still counts at that threshold is not the same in the two. Passing rec_thresholds
#            and iou_thresholds in double precision gives pycocotools' number.
# Matters:   the difference (0.005 of AP50 below, up to 1/101 of the height of each precision step) is as large as what
#            an INT8 model is allowed to lose; figures of the two tools must not be compared with each other.
# Versions:  torchmetrics 1.9.0, pycocotools 2.0.11, torch 2.14.1. Observed 2026-11-30, x86-64.
# (uv installs here because torchvision from the index brings a torch with CUDA: 7 GB on disk, a cache saves most of it.)
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet uv==0.13.8
venv/bin/uv pip install --quiet --python venv/bin/python torch==2.14.1 torchvision==0.29.2 torchmetrics==1.9.0 pycocotools==2.0.11 numpy==2.4.6
cat > check.py <<'PY'
import contextlib, io, warnings
from importlib.metadata import version

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

warnings.filterwarnings("ignore")
from torchmetrics.detection import MeanAveragePrecision

print({name: version(name) for name in ("torchmetrics", "pycocotools", "torch")})

# Ten objects of one class, one per image; recall 0.3, then false positives, recall 0.6, false positives, recall 0.7.
COUNT, OBJECT, ELSEWHERE = 10, [8.0, 8.0, 32.0, 32.0], [44.0, 44.0, 16.0, 16.0]
scores = {0: 0.99, 1: 0.97, 2: 0.95, 3: 0.80, 4: 0.78, 5: 0.76, 6: 0.60}
false_scores = {0: 0.90, 1: 0.88, 2: 0.86, 3: 0.70, 4: 0.68}


def with_pycocotools():
    dataset = {
        "images": [{"id": i + 1, "width": 64, "height": 64} for i in range(COUNT)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": i + 1, "image_id": i + 1, "category_id": 1, "bbox": OBJECT, "area": 1024.0, "iscrowd": 0}
                        for i in range(COUNT)],
    }
    found = [{"image_id": i + 1, "category_id": 1, "bbox": box, "score": s}
             for box, group in ((OBJECT, scores), (ELSEWHERE, false_scores)) for i, s in group.items()]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(found), "bbox")
        run.evaluate(), run.accumulate(), run.summarize()
    return float(run.stats[1])


def with_torchmetrics(**thresholds):
    metric = MeanAveragePrecision(box_format="xywh", backend="pycocotools", **thresholds)
    predictions, targets = [], []
    for i in range(COUNT):
        boxes = [OBJECT] * (i in scores) + [ELSEWHERE] * (i in false_scores)
        values = [group[i] for group in (scores, false_scores) if i in group]
        predictions.append({"boxes": torch.tensor(boxes).reshape(-1, 4), "scores": torch.tensor(values),
                            "labels": torch.zeros(len(boxes), dtype=torch.long)})
        targets.append({"boxes": torch.tensor([OBJECT]), "labels": torch.zeros(1, dtype=torch.long)})
    metric.update(predictions, targets)
    return float(metric.compute()["map_50"]), metric


reference = with_pycocotools()
default, metric = with_torchmetrics()
recalls, overlaps = np.linspace(0, 1, 101), np.linspace(0.5, 0.95, 10)
exact, _ = with_torchmetrics(rec_thresholds=recalls.tolist(), iou_thresholds=overlaps.tolist())
recall_high = int((np.array(metric.rec_thresholds) > recalls).sum())
iou_high = int((np.array(metric.iou_thresholds) > overlaps).sum())
print(f"recall thresholds above their decimal value: {recall_high} of 101, IoU thresholds: {iou_high} of 10")
print(f"AP50 pycocotools {reference:.6f}, torchmetrics {default:.6f}, torchmetrics with double thresholds {exact:.6f}")
same = (recall_high, iou_high) == (36, 4) and abs(exact - reference) < 1e-6 and 0.001 < abs(reference - default) < 0.01
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
