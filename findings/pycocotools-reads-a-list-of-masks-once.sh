#!/usr/bin/env bash
# pycocotools: loadRes of a list of mask results writes boxes into the caller's rows, and the same list then fails
#
# Expected:  COCO.loadRes(results) reads results; the same list can be scored again, for instance with another maxDets or on
#            other labels.
# Happens:   the rows are changed in place: each gets area, id, iscrowd and a bbox that is a NumPy array. A second
#            loadRes of the list takes them for boxes, compares the array with [] and ends in a ValueError about shapes (NumPy 2).
#            A list of boxes is changed too (area, id, iscrowd and a segmentation), and can be read again. faster-coco-eval does the
#            same in all of it.
# Matters:   whoever scores FP32 and INT8 results twice (per size, with crowds and without) fails for masks alone, in a
#            line that says nothing of it; rows that are written to a file afterwards cannot be serialised as JSON either.
# Versions:  pycocotools 2.0.11, faster-coco-eval 1.8.0, numpy 2.4.6. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
cat > check.py <<'PY'
import contextlib, io, json
from importlib.metadata import version

import faster_coco_eval
import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO

print({name: version(name) for name in ("pycocotools", "faster-coco-eval", "numpy")})
square = np.zeros((64, 64), np.uint8, order="F")
square[10:30, 20:50] = 1
rle = mask.encode(square)
rle["counts"] = rle["counts"].decode()
box = [20.0, 10.0, 30.0, 20.0]
truth = {"images": [{"id": 1, "width": 64, "height": 64, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "thing"}],
         "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 600.0, "bbox": box, "segmentation": rle}]}
common = {"image_id": 1, "category_id": 1, "score": 0.9}


def read(kind, extra):
    """What is in the caller's row after one loadRes, and how a second one ends."""
    with contextlib.redirect_stdout(io.StringIO()):
        labels = kind()
        labels.dataset = json.loads(json.dumps(truth))
        labels.createIndex()
        rows = [{**common, **extra}]
        labels.loadRes(rows)
        added = sorted(set(rows[0]) - set(common) - set(extra))
        held = type(rows[0].get("bbox")).__name__
        try:
            labels.loadRes(rows)
            return added, held, "read again"
        except ValueError as exc:
            return added, held, f"ValueError: {exc}"


seen = {(name, what): read(kind, extra)
        for name, kind in (("pycocotools", COCO), ("faster-coco-eval", faster_coco_eval.COCO))
        for what, extra in (("masks", {"segmentation": rle}), ("boxes", {"bbox": box}))}
for key, value in seen.items():
    print(*key, *value, sep=" | ")
added, held, second = seen["pycocotools", "masks"]
assert added == ["area", "bbox", "id", "iscrowd"] and held == "ndarray" and second.startswith("ValueError")
assert seen["pycocotools", "boxes"][0] == ["area", "id", "iscrowd", "segmentation"]
assert seen["pycocotools", "boxes"][2] == "read again"
for what in ("masks", "boxes"):
    assert seen["faster-coco-eval", what] == seen["pycocotools", what]
PY
venv/bin/python check.py
