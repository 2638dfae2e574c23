#!/usr/bin/env bash
# OpenCV: cv2.resize with INTER_LINEAR cuts fractions off, so pictures get darker by an eighth of a grey level
#
# Expected:  the nearest grey level of the interpolated value, as INTER_CUBIC and (nearly) INTER_LINEAR_EXACT give it: errors of
#            both signs that cancel.
# Happens:   640x480 to 416x416 or 960x720: one pixel in nine is one level too low and almost none too high, the mean is 0.1 levels
#            below the exact one. Exactly half the size is another code, which rounds ties up: one pixel in eight too high,
#            the mean 0.125 above. 4.14 and 5.0 are the same.
# Matters:   one grey level is one step of an int8 input, and the shift has one sign over the whole picture. A preprocessing of
#            one's own (a GPU, OpenVINO's PrePostProcessor, PIL) that rounds rightly differs from Ultralytics' letterbox in more
#            than a tenth of the bytes, and by a different sign for pictures twice as large: bit-equality has to be tested
#            behind the resize.
# Versions:  opencv-python-headless 4.14.0.94 and 5.0.0.93. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet numpy==2.4.6 opencv-python-headless==5.0.0.93
python3.11 -m venv older
older/bin/pip install --quiet numpy==2.4.6 opencv-python-headless==4.14.0.94
cat > check.py <<'PY'
import json
import subprocess
import sys

RUN = r"""
import json
import cv2, numpy as np
random = np.random.default_rng(0)
picture = cv2.GaussianBlur(random.integers(0, 256, (480, 640, 3)).astype(np.uint8), (5, 5), 2)
rows = {}
for width, height in ((416, 416), (960, 720), (320, 240)):
    for name in ("INTER_LINEAR", "INTER_LINEAR_EXACT", "INTER_CUBIC"):
        flag = getattr(cv2, name)
        exact = cv2.resize(picture.astype(np.float64), (width, height), interpolation=cv2.INTER_LINEAR if "LINEAR" in name else flag)
        got = cv2.resize(picture, (width, height), interpolation=flag).astype(float)
        nearest = np.clip(np.rint(exact), 0, 255)
        rows[f"{width}x{height} {name}"] = [float(np.mean(got < nearest)), float(np.mean(got > nearest)), float(np.mean(got - np.clip(exact, 0, 255)))]
print(json.dumps([cv2.__version__, rows]))
"""
same, seen = True, []
for python in (sys.executable, "older/bin/python"):
    version, rows = json.loads(subprocess.run([python, "-c", RUN], capture_output=True, text=True, check=True).stdout)
    seen.append(rows)
    for name, (low, high, mean) in rows.items():
        print(f"opencv {version} {name:27s} one level too low {low:6.2%}, too high {high:6.2%}, mean {mean:+.3f} levels from the exact one")
        if name.endswith("INTER_LINEAR"):
            same &= low == 0 and 0.1 < mean < 0.15 if name.startswith("320") else low > 0.1 and high < 0.02 and mean < -0.08
        elif not name.startswith("320"):
            same &= abs(mean) < 0.03
same &= seen[0] == seen[1]
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
