#!/usr/bin/env bash
# torchvision: four corners listed the other way round become a rotated box at another place
#
# Expected:  box_convert(corners, "xyxyxyxy", "cxcywhr") gives the box that has these corners: the centre is their mean, whatever corner
#            comes first and in whichever direction they are listed; or an error for an order that it does not read.
# Happens:   another first corner works. Listed in the other direction, as they are once a picture has been flipped, the same four
#            corners give a box of the right size and angle whose centre is 20 pixels off (the length of its short side), in a
#            direction that depends on the angle. No warning. Corners of cv2.boxPoints come in the direction that works.
# Matters:   oriented labels come as corners, and their direction changes with every horizontal flip. Half of a flipped data set then
#            has wrong boxes of plausible size; training and mAP get worse and nothing fails.
# Versions:  torchvision 0.29.2, torch 2.14.1, opencv-python-headless 4.14.0.94. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet uv==0.13.8
venv/bin/uv pip install --quiet --python venv/bin/python torch==2.14.1 torchvision==0.29.2 numpy==2.4.6 opencv-python-headless==4.14.0.94
cat > check.py <<'PY'
import cv2
import torch
import torchvision
from torchvision.ops import box_convert

print("torch", torch.__version__, "torchvision", torchvision.__version__, "opencv", cv2.__version__)
worst = {"as given": 0.0, "another first corner": 0.0, "the other way round": 0.0}
angles = range(-80, 90, 20)
for angle in angles:
    box = torch.tensor([[100.0, 50.0, 60.0, 20.0, float(angle)]], dtype=torch.float64)
    corners = box_convert(box, "cxcywhr", "xyxyxyxy").reshape(4, 2)
    for name, order in zip(worst, ([0, 1, 2, 3], [1, 2, 3, 0], [3, 2, 1, 0])):
        listed = corners[order]
        found = box_convert(listed.reshape(1, 8), "xyxyxyxy", "cxcywhr")
        distance = float((found[0, :2] - corners.mean(0)).norm())
        worst[name] = max(worst[name], distance)
        if angle in (-40, 20):
            print(f"angle {angle:4d}, {name:21s} {[round(v, 1) for v in found[0].tolist()]}")
for name, distance in worst.items():
    print(f"{name:21s} centre off by up to {distance:.2f} pixels")
rectangle = ((100.0, 50.0), (60.0, 20.0), 20.0)
listed = torch.from_numpy(cv2.boxPoints(rectangle).astype("float64")).reshape(1, 8)
found = box_convert(listed, "xyxyxyxy", "cxcywhr")[0]
print("corners of cv2.boxPoints", rectangle, "become", [round(v, 1) for v in found.tolist()])
same = worst["as given"] < 1e-3 and worst["another first corner"] < 1e-3 and 15 < worst["the other way round"] < 40
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
