"""``yoloquant demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...options import TextOrNone, option, option_model
from ...options.shared import Targets
from ..parser import Call
from ..progress import bar
from .run import whole_job

OUTPUT = "runs/yoloquant/demo"


@option_model
class DemoCall:
    """What the demonstration shows, exports to, and where."""

    targets: Targets = ("all",)
    task: Literal["detect", "obb"] = option(default="detect", help="which model: boxes, or rotated boxes")
    output: TextOrNone = option(
        default=None, help=f"folder for the results; {OUTPUT}, or {OUTPUT}-<task> for another task, if not given"
    )

    @property
    def folder(self) -> Path:
        """Where to: one for each task, whose images and exports are called alike."""
        usual = OUTPUT if self.task == "detect" else f"{OUTPUT}-{self.task}"
        return Path(self.output or usual)


PARTS = (DemoCall,)


def run(call: Call) -> int:
    """Run the embedded model through the whole job."""
    from ...data import demo
    from ...recipe import make_recipe

    own = call[DemoCall]
    folder = own.folder
    with bar("drawing the demo images"):
        prepared = demo.prepare(folder, own.task)
    # A call of so small a model is mostly overhead: the ratio of latencies is shown, not judged.
    chosen = {"targets": own.targets, "output": str(folder / "exports"), "validation": {"gate": "accuracy"}}
    return whole_job(make_recipe({**prepared, **chosen}), inconclusive=3)
