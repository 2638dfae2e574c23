"""What the guide to data sets tells people to copy works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from yoloquant.data.dataset import ValidationSet

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "datasets.md"


def test_rows_of_a_hugging_face_set_become_a_data_set(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    code: dict[str, object] = {}
    exec(next(block for block in blocks if "def write_split" in block), code)
    rows = [
        {
            "image": Image.fromarray(np.full((40, 80, 3), 30 * number, np.uint8)),
            "objects": {"category": [1], "bbox": [[8.0, 10.0, 16.0, 20.0]]},
        }
        for number in range(2)
    ]
    for split in ("train", "val"):
        code["write_split"](rows, tmp_path / split)  # type: ignore[operator]
    (tmp_path / "data.yaml").write_text(
        f"path: {tmp_path}\ntrain: train/images\nval: val/images\nnames: [first, second]\n", encoding="utf-8"
    )
    found = ValidationSet.from_yaml(str(tmp_path / "data.yaml"), split="val")
    assert len(found) == 2
    assert found.images[0].labels.classes.tolist() == [1]
    np.testing.assert_allclose(found.images[0].labels.boxes, [[0.2, 0.5, 0.2, 0.5]], atol=1e-6)
