"""``yoloquant demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...options import Text, option, option_model
from ...options.shared import Targets
from ..parser import Call
from ..progress import bar
from .run import whole_job


@option_model
class DemoCall:
    """What the demonstration shows, exports to, and where."""

    targets: Targets = ("all",)
    task: Literal["detect", "obb"] = option(default="detect", help="which model: boxes, or rotated boxes")
    output: Text = option(default="runs/yoloquant/demo", help="folder for the results")


PARTS = (DemoCall,)


def run(call: Call) -> int:
    """Run the embedded model through the whole job."""
    from ...data import demo
    from ...recipe import make_recipe

    own = call[DemoCall]
    folder = Path(own.output)
    with bar("drawing the demo images"):
        prepared = demo.prepare(folder, own.task)
    # A call of so small a model is mostly overhead: the ratio of latencies is shown, not judged.
    chosen = {"targets": own.targets, "output": str(folder / "exports"), "validation": {"gate": "accuracy"}}
    return whole_job(make_recipe({**prepared, **chosen}), inconclusive=3)
