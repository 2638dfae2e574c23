#!/usr/bin/env bash
# globox: a COCO crowd region is read as an ordinary object, by its converters and by its COCO evaluator
#
# Expected:  COCOEvaluator gives pycocotools' figures, where a region with "iscrowd": 1 is neither required nor punished, and
#            COCO read and written again keeps the mark; or reading skips such regions (as Ultralytics' converter does).
# Happens:   from_coco reads the box of the region and forgets the mark. Nine objects and one crowd region a picture, the nine
#            found exactly: COCOEvaluator says AP 0.901, pycocotools 1.0. save_coco writes every region with "iscrowd": 0,
#            save_yolo_v5 a label as large as the crowd. No warning; "iscrowd" is even in the file, as 0.
# Matters:   COCO's own sets have such regions. Evaluated or converted with globox every detector loses recall there, and a
#            detector trained on the labels is taught that a crowd is one person of the crowd's size.
# Versions:  globox 2.9.0, pycocotools 2.0.11. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet globox==2.9.0 pycocotools==2.0.11 numpy==2.4.6
cat > check.py <<'PY'
import contextlib, io, json
from importlib.metadata import version
from pathlib import Path

from globox import AnnotationSet, COCOEvaluator
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print({name: version(name) for name in ("globox", "pycocotools")})
WIDTH, HEIGHT, PICTURES, OBJECTS = 1000, 400, 10, 9
images = [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(1, PICTURES + 1)]
annotations = []
for image in images:
    for i in range(OBJECTS + 1):
        crowd = i == OBJECTS
        x, y, w, h = (0, 200, WIDTH, 200) if crowd else (i * 100, 20, 60, 120)
        # Run lengths go down the columns: 200 rows without, 200 rows with the crowd.
        outline = {"size": [HEIGHT, WIDTH], "counts": [200] * (2 * WIDTH)} if crowd else [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append({"id": len(annotations) + 1, "image_id": image["id"], "category_id": 1, "iscrowd": int(crowd), "bbox": [x, y, w, h],
                            "area": w * h, "segmentation": outline})
truth = {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": annotations}
found = [{"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.9} for a in annotations if not a["iscrowd"]]
Path("truth.json").write_text(json.dumps(truth))
Path("found.json").write_text(json.dumps(found))


def pycocotools_ap(path):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
        run = COCOeval(coco, coco.loadRes("found.json"), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 3)


read = AnnotationSet.from_coco(Path("truth.json"))
results = read.from_results(Path("found.json"))
own = round(float(COCOEvaluator(ground_truths=read, predictions=results).ap()), 3)
read.save_coco(Path("again.json"), label_to_id={"person": 1}, imageid_to_id={f"{i['id']}.jpg": i["id"] for i in images}, auto_ids=True)
again = json.loads(Path("again.json").read_text())
marks = [sum(a["iscrowd"] for a in file["annotations"]) for file in (truth, again)]
read.save_yolo_v5(Path("yolo"), label_to_id={"person": 0})
first = Path("yolo/1.txt").read_text().splitlines()
widest = max(float(line.split()[3]) for line in first)
exact = pycocotools_ap("truth.json")
print(f"AP: pycocotools {exact}, globox {own}")
print(f"crowd regions in the COCO file: {marks[0]}, read and written again: {marks[1]} of {len(again['annotations'])} annotations")
print(f"YOLO labels of the first picture: {len(first)}, the widest as wide as {widest:.0%} of the picture")
same = exact == 1.0 and own == 0.901 and marks == [PICTURES, 0] and len(first) == OBJECTS + 1 and widest == 1.0
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
