#!/usr/bin/env bash
# supervision: an object whose mask has two parts becomes two objects, with two boxes, when a data set is written
#
# Expected:  DetectionDataset.from_coco(...).as_yolo(...) writes one label a COCO annotation: the parts joined to one outline
#            (as Ultralytics' own converter does) or, for want of that, the annotation's box.
# Happens:   as_yolo and as_pascal_voc write every connected part of the mask as an object of its own, although the box of
#            the whole is in the dataset. The box that a detector is trained on and scored against is that of a part: 40 of
#            110 pixels wide below. as_coco keeps the annotation but writes the edge of a hole as one more polygon: pycocotools,
#            which joins polygons, fills the hole.
# Matters:   objects behind a post, a pole or a person have two parts in COCO's polygons as a matter of course. A data set
#            converted like this has more objects than its source: mAP and the number of instances are not comparable, and
#            a model (FP32 or INT8) that finds the whole object is charged two misses and a false positive.
# Versions:  supervision 0.31.2, pycocotools 2.0.11, opencv-python-headless 5.0.0.93. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet supervision==0.31.2 pycocotools==2.0.11 opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6
cat > check.py <<'PY'
import contextlib, io, json, warnings
import xml.etree.ElementTree as xml
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO

warnings.filterwarnings("ignore")
import supervision as sv

print({name: version(name) for name in ("supervision", "pycocotools", "opencv-python-headless")})
WIDTH, HEIGHT = 200, 100


def runs(canvas):
    """COCO's uncompressed run lengths: down the columns, zeros first."""
    flat = canvas.T.ravel()
    return np.diff([0, *np.flatnonzero(np.diff([0, *flat])), flat.size]).tolist()


# One object in two parts, one with a hole, one in one piece: a picture each.
parts = [[20, 20, 60, 20, 60, 70, 20, 70], [90, 20, 130, 20, 130, 70, 90, 70]]
ring = np.zeros((HEIGHT, WIDTH), int)
ring[20:80, 20:80] = 1
ring[40:60, 40:60] = 0
whole = [[10, 20, 40, 20, 40, 60, 10, 60]]
objects = {"parts": (parts, [20, 20, 110, 50], 4000), "ring": ({"size": [HEIGHT, WIDTH], "counts": runs(ring)}, [20, 20, 60, 60], 3200),
           "whole": (whole, [10, 20, 30, 40], 1200)}
Path("images").mkdir()
images, annotations = [], []
for number, (name, (segmentation, box, area)) in enumerate(objects.items(), 1):
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(f"images/{name}.jpg")
    images.append({"id": number, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT})
    annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": segmentation, "bbox": box,
                        "area": area, "iscrowd": 0})
source = {"images": images, "categories": [{"id": 1, "name": "thing"}], "annotations": annotations}
Path("source.json").write_text(json.dumps(source))

dataset = sv.DetectionDataset.from_coco("images", "source.json")
boxes = {Path(k).stem: v.xyxy.round().astype(int).tolist() for k, v in dataset.annotations.items()}
dataset.as_yolo(annotations_directory_path="yolo", data_yaml_path="data.yaml")
dataset.as_pascal_voc(annotations_directory_path="voc")
dataset.as_coco(annotations_path="coco.json")

seen = {}
for name in objects:
    widths = []
    for line in Path(f"yolo/{name}.txt").read_text().splitlines():
        x = np.array(line.split()[1:], float)[0::2] * WIDTH
        widths.append(round(float(np.ptp(x))))
    in_voc = len(xml.parse(f"voc/{name}.xml").findall("object"))
    seen[name] = (len(boxes[name]), widths, in_voc)
    print(f"{name:6s} boxes in the dataset {boxes[name]}; YOLO labels of width {widths}; VOC objects {in_voc}")
areas = {}
for name in ("source", "coco"):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(f"{name}.json")
    areas[name] = [int(mask.area(coco.annToRLE(coco.anns[i]))) for i in sorted(coco.anns)]
    print(f"{name}.json: pixels of each object's mask {areas[name]}")
same = seen["parts"] == (1, [40, 40], 2) and seen["ring"][0] == seen["ring"][2] == len(seen["ring"][1]) == 1
same &= seen["whole"] == (1, [30], 1) and areas["source"][1] == 3200 and areas["coco"][1] > 3400
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
