#!/usr/bin/env bash
# torchvision: a horizontal flip moves keypoints one pixel less than boxes, and than a rotation does
#
# Expected:  boxes and keypoints of one sample share one system of coordinates: a keypoint on the corner of a box is on the corner of
#            the flipped box, and flipping both ways is turning by 180 degrees.
# Happens:   horizontal_flip and vertical_flip map a box's x to width - x and a keypoint's to width - 1 - x; rotate, resize, crop, pad and
#            perspective treat both alike (edges of pixels, width - x). So every flip moves keypoints by a pixel against their
#            box and picture, in one direction, and a flip undone by a rotation does not come back.
# Matters:   one pixel in 640 is small, but it is a bias of all joints that flips with the augmentation: at OKS 0.95 and on crops of 64
#            pixels it costs accuracy, and test-time augmentation that averages a flipped prediction is off by half a pixel.
#            Keypoints that a rotated box was turned into (its corners) do not lie on the flipped rotated box any more.
# Versions:  torchvision 0.29.2, torch 2.14.1. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet uv==0.13.8
venv/bin/uv pip install --quiet --python venv/bin/python torch==2.14.1 torchvision==0.29.2 numpy==2.4.6
cat > check.py <<'PY'
import torch
import torchvision
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

print("torch", torch.__version__, "torchvision", torchvision.__version__)
SIZE = (100, 200)  # height, width
box = tv_tensors.BoundingBoxes(torch.tensor([[10.0, 20.0, 40.0, 60.0]]), format="XYXY", canvas_size=SIZE)
points = tv_tensors.KeyPoints(torch.tensor([[[10.0, 20.0], [40.0, 60.0]]]), canvas_size=SIZE)  # two corners of the box
picture = torch.zeros(1, *SIZE)
picture[:, 20:60, 10:40] = 1  # the pixels of the box


def filled(image):
    rows, columns = image[0].nonzero().T
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


STEPS = {
    "horizontal flip": F.horizontal_flip,
    "vertical flip": F.vertical_flip,
    "rotate by 90": lambda x: F.rotate(x, 90, expand=True),
    "rotate by 180": lambda x: F.rotate(x, 180),
    "both flips": lambda x: F.vertical_flip(F.horizontal_flip(x)),
    "resize to half": lambda x: F.resize(x, [50, 100]),
    "pad": lambda x: F.pad(x, [3, 4]),
}
apart = {}
for name, step in STEPS.items():
    corners = step(box)[0].tolist()
    moved = step(points)[0]
    hull = [*moved.amin(0).tolist(), *moved.amax(0).tolist()]
    pixels = filled(step(picture) > 0.5)
    apart[name] = [round(a - b, 3) for a, b in zip(hull, corners)]
    print(f"{name:16s} pixels {pixels}, box {corners}, keypoints {hull}, apart {apart[name]}")
same = all((any(apart[name])) == ("flip" in name) for name in STEPS)
same &= apart["horizontal flip"] == [-1, 0, -1, 0] and apart["vertical flip"] == [0, -1, 0, -1] and apart["both flips"] == [-1] * 4
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
