#!/usr/bin/env bash
# kornia: AugmentationSequential moves boxes off the picture: by a pixel in a flip or rotation, by several when it is enlarged
#
# Expected:  with data_keys input, mask and bbox_xyxy, an object of pixels 20 to 23 and its box (20, 24) stay together: a flip of a picture
#            64 wide gives (40, 44), enlarging it ten times (200, 240), as with torchvision and albumentations.
# Happens:   box corners are moved like centres of pixels, x -> width - 1 - x and x * (new - 1) / (old - 1). Flips and rotations by 90
#            and 180 degrees leave the box one pixel away from the object, to the left or above. Enlarged ten times the box is (202.9, 243.4),
#            the object in the picture (198, 239) and in the mask (200, 240): picture and mask are sampled in different ways, too.
#            Halving and padding are right to a fraction of a pixel, so a look at one picture made smaller shows nothing.
# Matters:   YOLO labels and COCO boxes are edges, not centres. One pixel of a 16-pixel object is an IoU of 0.88 and a bias that turns with
#            every flip; 4 pixels in enlarged small pictures cost AP75 and above.
# Versions:  kornia 0.9.0, torch 2.14.1. Observed 2026-12-01, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet uv==0.13.8
venv/bin/uv pip install --quiet --python venv/bin/python kornia==0.9.0 torch==2.14.1 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import kornia.augmentation as K
import torch

print({name: version(name) for name in ("kornia", "torch")})
picture = torch.zeros(1, 1, 64, 64)
picture[:, :, 10:14, 20:24] = 1
BOX = torch.tensor([[[20.0, 10.0, 24.0, 14.0]]])  # the edges of these pixels


def filled(image):
    rows, columns = (image[0, 0] > 0.5).nonzero().T
    return [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


STEPS = {
    "horizontal flip": K.RandomHorizontalFlip(p=1.0),
    "vertical flip": K.RandomVerticalFlip(p=1.0),
    "rotation by 90": K.RandomRotation((90.0, 90.0), p=1.0),
    "rotation by 180": K.RandomRotation((180.0, 180.0), p=1.0),
    "enlarged ten times": K.Resize((640, 640)),
    "halved": K.Resize((32, 32)),
    "padded": K.PadTo((128, 128)),
}
apart, masks = {}, {}
for name, step in STEPS.items():
    image, box, mask = K.AugmentationSequential(step, data_keys=["input", "bbox_xyxy", "mask"])(picture, BOX.clone(), picture.clone())
    corners = [round(float(v), 2) for v in torch.as_tensor(getattr(box, "data", box)).flatten()]
    apart[name] = [round(a - b, 2) for a, b in zip(corners, filled(image))]
    masks[name] = filled(mask)
    print(f"{name:18s} pixels {filled(image)}, mask {masks[name]}, box {corners}: box - pixels {apart[name]}")
same = apart["horizontal flip"] == [-1, 0, -1, 0] and apart["vertical flip"] == [0, -1, 0, -1]
same &= apart["rotation by 90"] == [0, -1, 0, -1] and apart["rotation by 180"] == [-1, -1, -1, -1]
same &= min(apart["enlarged ten times"]) > 4 and masks["enlarged ten times"] == [200, 100, 240, 140]
same &= max(map(abs, apart["halved"])) < 0.25 and apart["padded"] == [0, 0, 0, 0]
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
