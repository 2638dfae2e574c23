"""``yoloquant plan``."""

from __future__ import annotations

from pathlib import Path

from ...io import write_text
from ...options import PathOrNone, option, option_model
from ...options.shared import AnyCheckpoint, InputSize
from ..parser import Call
from ..progress import bar


@option_model
class PlanCall:
    """Whose plan, and where it goes."""

    model: AnyCheckpoint
    scheme: str = option(default="portable", help="the scheme")
    imgsz: InputSize = None
    output: PathOrNone = option(default=None, help="JSON file to write; printed if not given")


PARTS = (PlanCall,)


def run(call: Call) -> int:
    """Print or save the plan."""
    from ... import api

    own = call[PlanCall]
    with bar("planning"):
        plan = api.plan(own.model, scheme=own.scheme, imgsz=own.imgsz)
    if own.output:
        write_text(Path(own.output), plan.to_json())
        print(f"saved {own.output}")
    else:
        print(plan)
    return 0
