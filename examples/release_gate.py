"""Judge exports by limits of your own, and leave with the verdict as the exit code.

Usage: python examples/release_gate.py [FOLDER]
"""

import sys
from pathlib import Path

import yoloquant
from yoloquant.data import demo

GATE = {
    "name": "example",
    "limits": {
        "fidelity": 0.9,  # least agreement with the FP32 model; fractions, not points
        "map_drop": {"limit": 0.02, "rule": "veto"},  # fails only if the whole interval is beyond 2 points
    },
}


def main(folder: Path) -> int:
    """Export the embedded model and judge it on its own validation images."""
    mine = demo.prepare(folder)
    artifact = yoloquant.quantize(mine["model"], data=mine["data"], imgsz=mine["imgsz"], images=32)
    exports = yoloquant.export(artifact, targets="onnxruntime", output=folder / "exports")
    result = yoloquant.validate(
        artifact, exports, data=mine["data"], gate=GATE, limit=64, latency=False, memory=False, report=folder / "report"
    )
    print(result.verdict.value, "- see", folder / "report" / "report.html")
    return 0 if result.verdict is yoloquant.Verdict.PASS else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples/gate")))
