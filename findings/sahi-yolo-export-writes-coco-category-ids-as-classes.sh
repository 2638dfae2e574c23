#!/usr/bin/env bash
# sahi: export_as_yolo writes COCO's category ids as class numbers, although the data yaml counts classes from 0
#
# Expected:  Coco.from_coco_dict_or_path(...).export_as_yolo(...) numbers classes by their place in the names that it writes, as
#            every converter of COCO does, and cuts boxes at the edge of the picture, for its own slicing does so.
# Happens:   label files hold the category_id of the JSON as it is, while data.yml says nc and names counted from 0. With ids 1 and 3 the
#            first class is read as the second, and the second as one that does not exist. Boxes that reach over the edge stay
#            so: a normalized right side of 1.07. Crowd regions become ordinary objects. No warning.
# Matters:   COCO's ids go from 1 to 90 with gaps, and labelling tools count from 1. With ids 1 to N every label but those of the last
#            class is valid and every name is shifted by one: training runs, and the mAP looks normal for the wrong classes.
# Versions:  sahi 0.12.8. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile sahi==0.12.8 opencv-python==5.0.0.93 shapely==2.2.0 pillow==13.0.0 numpy==2.4.6
cat > check.py <<'PY'
import json
from importlib.metadata import version
from pathlib import Path

from PIL import Image
from sahi.utils.coco import Coco

print("sahi", version("sahi"))
WIDTH, HEIGHT = 300, 200
Path("images").mkdir()
Image.new("RGB", (WIDTH, HEIGHT)).save("images/a.jpg")
boxes = {"cat": ([10, 10, 50, 40], 0), "dog": ([100, 20, 60, 50], 0), "dog over the edge": ([280, 100, 40, 40], 0),
         "crowd of dogs": ([20, 120, 60, 50], 1)}
ids = {"cat": 1, "dog": 3}
annotations = [{"id": i, "image_id": 1, "category_id": ids["cat" if name == "cat" else "dog"], "bbox": box, "area": box[2] * box[3],
                "iscrowd": crowd, "segmentation": []} for i, (name, (box, crowd)) in enumerate(boxes.items(), 1)]
source = {"images": [{"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}], "annotations": annotations,
          "categories": [{"id": i, "name": name} for name, i in ids.items()]}
Path("source.json").write_text(json.dumps(source))

Coco.from_coco_dict_or_path("source.json", image_dir="images").export_as_yolo("yolo", train_split_rate=1.0)
(data,) = Path("yolo").glob("*.y*ml")
print(data.read_text())
(labels,) = Path("yolo").rglob("a.txt")
rows = [[float(v) for v in line.split()] for line in labels.read_text().splitlines()]
for name, row in zip(boxes, rows):
    print(f"{name:18s} class {row[0]:.0f}, from {row[1] - row[3] / 2:.3f} to {row[1] + row[3] / 2:.3f} of the width")
same = "nc: 2" in data.read_text() and "[cat, dog]" in data.read_text()
same &= [int(row[0]) for row in rows] == [1, 3, 3, 3] and rows[2][1] + rows[2][3] / 2 > 1.05
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
