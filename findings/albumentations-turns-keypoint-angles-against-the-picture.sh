#!/usr/bin/env bash
# albumentations: Rotate and Affine turn a keypoint's angle against the picture, RandomRotate90 and the flips with it
#
# Expected:  an oriented object given as a keypoint (x, y, angle, size; format "xyas") still points along the object after any
#            rotation: whichever direction angles are counted in, all transforms use the same one.
# Happens:   RandomRotate90 and the flips count as pictures are drawn (x to the right, y down), Rotate, SafeRotate, Affine and
#            ShiftScaleRotate the other way round: an object at 35 degrees is at 5 after 30 degrees and gets 65, and a quarter turn by
#            RandomRotate90 and by Rotate puts the point at the same place with angles 180 degrees apart. Transpose gives the opposite
#            direction from 180 degrees on (D4 with it). Positions are right everywhere, so nothing shows in a plot of points.
# Matters:   rotation is the augmentation for aerial pictures, and keypoints are this library's only form of an oriented box. Labels are
#            off by twice the rotation, so training with Rotate(90) learns angles that are right for some pictures and wrong for others.
# Versions:  albumentations 2.0.8. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet albumentations==2.0.8 numpy==2.4.6 opencv-python-headless==4.14.0.94
cat > check.py <<'PY'
from importlib.metadata import version

import albumentations as A
import numpy as np

print("albumentations", version("albumentations"))
PICTURE = np.zeros((201, 301, 3), np.uint8)
CENTRE, LENGTH = np.array([160.0, 80.0]), 20.0


def off(transform, angle):
    """Degrees between the angle that a keypoint gets and the direction from it to a second point of the same object."""
    head = CENTRE + LENGTH * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    points = A.KeypointParams(format="xyas", remove_invisible=False, angle_in_degrees=True)
    worst = 0.0
    for seed in range(8):
        apply = A.Compose([transform], keypoint_params=points, seed=seed)
        tail, tip = np.array(apply(image=PICTURE, keypoints=[(*CENTRE, angle, LENGTH), (*head, 0, 1)])["keypoints"], float)
        direction = np.degrees(np.arctan2(*(tip - tail)[[1, 0]]))
        difference = abs((tail[2] - direction + 180) % 360 - 180)
        worst = max(worst, difference)
    return round(float(worst))


ANGLES = (35, 100, 250)
# What is seen for each of the angles above, in degrees.
SEEN = {
    "HorizontalFlip": (A.HorizontalFlip(p=1), (0, 0, 0)),
    "VerticalFlip": (A.VerticalFlip(p=1), (0, 0, 0)),
    "RandomRotate90": (A.RandomRotate90(p=1), (0, 0, 0)),
    "Affine(scale=1.5)": (A.Affine(scale=(1.5, 1.5), p=1), (0, 0, 0)),
    "Rotate(30)": (A.Rotate((30, 30), p=1), (60, 60, 60)),
    "Rotate(90)": (A.Rotate((90, 90), p=1), (180, 180, 180)),
    "Affine(rotate=30)": (A.Affine(rotate=(30, 30), p=1), (60, 60, 60)),
    "ShiftScaleRotate(30)": (A.ShiftScaleRotate(shift_limit=0, scale_limit=0, rotate_limit=(30, 30), p=1), (60, 60, 60)),
    "Transpose": (A.Transpose(p=1), (0, 0, 180)),
}
same = True
for name, (transform, seen) in SEEN.items():
    got = tuple(off(transform, angle) for angle in ANGLES)
    print(f"{name:21s} angle of an object at {ANGLES} degrees is off by {got}")
    same &= got == seen
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
