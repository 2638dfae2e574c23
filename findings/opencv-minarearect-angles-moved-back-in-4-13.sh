#!/usr/bin/env bash
# OpenCV: minAreaRect's angle convention went back from (0, 90] to [-90, 0) in 4.13, width and height swap
#
# Expected:  since 4.5.1 the angle lies in (0, 90]; code that turns polygons into (w, h, angle) for OBB labels relies on it.
# Happens:   4.11 and 4.12 give (0, 90], 4.13 and 5.0 give [-90, 0) as before 4.5.1. For most rectangles width and height
#            swap along; an axis-parallel box keeps its sides and turns from +90 to -90.
# Matters:   OBB labels, caches and INT8 calibration data made with one version do not have the numbers of another: a box
#            head that regresses the angle sees two conventions, and comparing angles of two devices gives jumps of 90.
# Versions:  opencv-python-headless 4.12.0.88, 4.13.0.90 and 5.0.0.93. Observed 2026-11-29, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet opencv-python-headless==4.12.0.88
cat > check.py <<'PY'
import json, sys

import cv2
import numpy as np

boxes = [[[0, 0], [10, 0], [10, 5], [0, 5]], [[0, 0], [8, 6], [5, 10], [-3, 4]], [[0, 0], [6, 8], [2, 11], [-4, 3]]]
rows = []
for box in boxes:
    _, (width, height), angle = cv2.minAreaRect(np.array(box, np.float32))
    rows.append([round(width, 1), round(height, 1), round(angle, 1)])
print(cv2.__version__, "(w, h, angle):", rows)
old = [[5.0, 10.0, 90.0], [10.0, 5.0, 36.9], [10.0, 5.0, 53.1]]
new = [[5.0, 10.0, -90.0], [5.0, 10.0, -53.1], [5.0, 10.0, -36.9]]
recorded = old if sys.argv[1] == "old" else new
raise SystemExit(0 if rows == recorded else "the recorded behaviour has changed")
PY
venv/bin/python check.py old
for version in 4.13.0.90 5.0.0.93; do
    venv/bin/pip install --quiet "opencv-python-headless==$version"
    venv/bin/python check.py new
done
