"""Look at a pruning plan, apply it, and count what is left.

Usage: python examples/prune.py [FOLDER]
"""

import sys
from pathlib import Path

import yoloquant
from yoloquant.data import demo


def main(folder: Path) -> None:
    """Take a third of the multiplications from the embedded model; fine-tune with ``yoloquant.train(prune=...)``."""
    mine = demo.prepare(folder)
    options = yoloquant.PruneOptions(amount=0.33, criterion="l2", round_to=8)
    planned = yoloquant.prune(mine["model"], options=options, imgsz=mine["imgsz"], dry_run=True)
    print(planned.plan)
    made = yoloquant.prune(mine["model"], options=options, imgsz=mine["imgsz"], output=folder / "pruned.pt")
    print("\n".join(made.report))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples/prune"))
