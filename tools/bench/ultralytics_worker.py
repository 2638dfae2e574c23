"""One INT8 export by Ultralytics, in a process of its own: NNCF and its LiteRT exporter patch torch globally.

    python -m tools.bench.ultralytics_worker <checkpoint> <format> <data yaml> <imgsz> <result file>

The artifact lies beside the checkpoint; its path is written into the result file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine


def main(checkpoint: str, form: str, data: str, imgsz: str, result: str) -> int:
    """Export, with every setting but the data left as Ultralytics has it."""
    from ultralytics import YOLO
    from ultralytics.utils import DEFAULT_CFG_DICT

    eight_bits = {"quantize": 8} if "quantize" in DEFAULT_CFG_DICT else {"int8": True}  # renamed during 8.4
    path = YOLO(checkpoint).export(format=form, data=data, imgsz=int(imgsz), device="cpu", **eight_bits)
    if not path or not Path(path).exists():
        raise SystemExit(f"Ultralytics wrote no {form} file")
    Path(result).write_text(str(Path(path).resolve()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
