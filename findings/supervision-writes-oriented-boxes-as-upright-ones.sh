#!/usr/bin/env bash
# supervision: a data set of oriented boxes that is read and written again has upright boxes
#
# Expected:  DetectionDataset.from_yolo(..., is_obb=True).as_yolo(...) writes what it has read: the class and four corners of each box,
#            which are in the dataset (data["xyxyxyxy"]), or refuses.
# Happens:   as_yolo writes the class and an upright box, five numbers a line; as_coco writes it as well, without a polygon. A box of
#            100 x 20 turned by 45 degrees comes back three and a half times as large. No warning.
# Matters:   reading, splitting or merging and writing is what the class is for. The angles are lost for good, the files are valid
#            labels of the same objects, and reading them again without is_obb shows nothing wrong.
# Versions:  supervision 0.31.2, opencv-python 5.0.0.93. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile supervision==0.31.2 opencv-python==5.0.0.93 pillow==13.0.0 numpy==2.4.6
cat > check.py <<'PY'
import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

warnings.filterwarnings("ignore")
import supervision as sv

print("supervision", version("supervision"))
SIZE = 200
turn = np.deg2rad(45)
corners = np.array([[-50, -10], [50, -10], [50, 10], [-50, 10]]) @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + SIZE / 2
for folder in ("images", "labels"):
    Path(folder).mkdir()
Image.new("RGB", (SIZE, SIZE)).save("images/a.jpg")
Path("labels/a.txt").write_text("0 " + " ".join(f"{v / SIZE:.6f}" for v in corners.ravel()) + "\n")
Path("data.yaml").write_text("names: [ship]\nnc: 1\n")


def area(points):
    x, y = np.asarray(points, float).reshape(-1, 2).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


dataset = sv.DetectionDataset.from_yolo("images", "labels", "data.yaml", is_obb=True)
(read,) = dataset.annotations.values()
dataset.as_yolo(annotations_directory_path="written", data_yaml_path="written.yaml")
dataset.as_coco(annotations_path="written.json")
line = Path("written/a.txt").read_text().split()
(row,) = json.loads(Path("written.json").read_text())["annotations"]
print("read:", Path("labels/a.txt").read_text().strip(), "area", round(area(corners)))
print("in the dataset:", read.data["xyxyxyxy"].round(1).tolist(), "area", round(area(read.data["xyxyxyxy"])))
written = float(line[3]) * float(line[4]) * SIZE**2
print("as_yolo:", " ".join(line), "area", round(written))
print("as_coco:", row["bbox"], "polygon", row["segmentation"], "area", round(row["area"]))
same = len(line) == 5 and round(area(read.data["xyxyxyxy"])) == round(area(corners)) == 2000
same &= 3.4 < written / 2000 < 3.8 and row["segmentation"] == []
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
