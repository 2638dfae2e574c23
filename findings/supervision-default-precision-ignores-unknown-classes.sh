#!/usr/bin/env bash
# supervision: by default, false positives of classes that the labels do not contain cost nothing
#
# Expected:  Precision() and F1Score() of one right and one wrong box are 0.5 and 0.67, whatever class the wrong box claims.
# Happens:   the default averaging weights each class by its number of labels. A wrong box of a labelled class gives 0.5; the
#            same box under a class without labels gives precision 1.0 and F1 1.0. MACRO and MICRO see it.
# Matters:   a quantized class head fails just so, by firing other classes; on a small or filtered evaluation set (few of
#            80 classes present) the default precision then stays perfect while the detector hallucinates.
# Versions:  supervision 0.31.2. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile supervision==0.31.2 numpy==2.4.6
cat > check.py <<'PY'
import warnings
from importlib.metadata import version

import numpy as np

warnings.filterwarnings("ignore")
import supervision as sv
from supervision.metrics import AveragingMethod, F1Score, Precision

print("supervision", version("supervision"), "default averaging:", Precision().averaging_method.name)
boxes = np.array([[0, 0, 100, 100], [200, 200, 300, 300]], float)
labels = sv.Detections(xyxy=boxes[:1], class_id=np.array([0]))
seen = {}
for wrong_class in (0, 1):
    found = sv.Detections(xyxy=boxes, confidence=np.array([0.9, 0.95]), class_id=np.array([0, wrong_class]))
    for averaging in (None, AveragingMethod.MACRO, AveragingMethod.MICRO):
        options = {} if averaging is None else {"averaging_method": averaging}
        precision = Precision(**options).update([found], [labels]).compute().precision_at_50
        f1 = F1Score(**options).update([found], [labels]).compute().f1_50
        name = "default" if averaging is None else averaging.name
        seen[name, wrong_class] = (round(float(precision), 2), round(float(f1), 2))
        print(f"{name:8s} false positive of a {'labelled' if wrong_class == 0 else 'label-less'} class: precision {precision:.2f}, F1 {f1:.2f}")
same = seen["default", 0] == (0.5, 0.67) and seen["default", 1] == (1.0, 1.0) and all(seen[n, 1][0] == 0.5 for n in ("MACRO", "MICRO"))
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
