"""The commands that make a model smaller: prune, and what pruning hands to train."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .parser import given
from .verbs import VERBS

if TYPE_CHECKING:
    from argparse import Namespace

PREFIX = "prune_"
_OWN = ("model", "data", "imgsz", "dry_run", "latency", "save_plan", "output")


def prune_settings(share: float | None, arguments: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Options of pruning among a training command's arguments, and the rest.

    Args:
        share: What ``prune=`` says.
        arguments: Everything that is handed on; ``prune_criterion=taylor`` and the like belong to pruning.

    Returns:
        Options of pruning, None if there are none; and Ultralytics' arguments.
    """
    ours = {k[len(PREFIX) :]: v for k, v in arguments.items() if k.startswith(PREFIX)}
    rest = {k: v for k, v in arguments.items() if not k.startswith(PREFIX)}
    if share is None and not ours:
        return None, rest
    return {**({} if share is None else {"amount": share}), **ours}, rest


def prune(options: Namespace) -> int:
    """``yoloquant prune``."""
    from ..pruning.prune import prune as run
    from ..pruning.prune_options import parse

    values = given(options, VERBS, "prune")
    chosen = parse({k: v for k, v in values.items() if k not in _OWN})
    print("following the channels ...", file=sys.stderr, flush=True)
    result = run(
        values["model"],
        data=values["data"],
        options=chosen,
        imgsz=values["imgsz"],
        output=values["output"],
        dry_run=values["dry_run"],
        latency=values["latency"],
    )
    for line in result.report:
        print(line)
    if values["save_plan"] and result.plan is not None:
        print(f"saved {result.plan.save(Path(values['save_plan']))}")
    if result.path is None:
        print(f"next: the same without dry_run, or edit the plan (save_plan=) and give plan=; model={values['model']}")
        return 0
    print(f"saved {result.path}")
    print(f"next: yoloquant train model={values['model']} data=<data yaml> prune={values['amount']} fine-tunes it too")
    return 0


def analyze(options: Namespace) -> int:
    """``yoloquant analyze``."""
    from ..io import output_folder
    from ..sensitivity import AnalyzeOptions
    from ..sensitivity import analyze as run
    from ..sensitivity.plots import write_plots
    from .progress import bar

    values = given(options, VERBS, "analyze")
    model, data, output, limit = (values.pop(k) for k in ("model", "data", "output", "limit"))
    path = Path(model)
    folder = output_folder(output or path.parent / f"{path.stem}_sensitivity")
    for name in ("ratios", "only"):
        values[name] = tuple(part.strip() for part in values[name].split(",") if part.strip())
    with bar("analysing") as progress:
        found = run(model, data=data, options=AnalyzeOptions(**values, folder=folder), progress=progress)
    saved = found.save(folder / "sensitivity.json")
    for line in found.table():
        print(line)
    for plot in write_plots(found, folder):
        print(f"plot: {plot}")
    print(f"saved {saved}")
    if values["kind"] == "prune":
        shares = found.protected(limit)
        kept = sum(1 for share in shares.values() if not share)
        print(f"at a drop of {limit:g} {kept} of {len(shares)} groups stay whole")
        print(f"next: yoloquant prune model={model} data={data} sensitivity={saved} tolerance={limit:g}")
    return 0
