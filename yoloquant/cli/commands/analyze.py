"""``yoloquant analyze``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...bridge.checkpoint import check_path
from ...bridge.data_file import check_data_file
from ...io import output_folder
from ...options import PathOrNone, Text, option, option_model
from ...options.shared import TrainedCheckpoint
from ...sensitivity.analyze_options import AnalysisKind, AnalyzeOptions
from ..parser import Call
from ..progress import bar


@option_model
class AnalyzeCall:
    """What is analysed, on what."""

    model: TrainedCheckpoint
    data: Text = option(help="data yaml, or a folder of images unless metric=map")
    limit: float = option(default=0.05, ge=0, help="say how much may go of each layer at this drop")
    output: PathOrNone = option(
        default=None, help="folder for results, plots and what resuming needs; <model>_sensitivity if not given"
    )


PARTS = (AnalyzeCall, AnalyzeOptions)


def run(call: Call) -> int:
    """Measure, save, plot, and say how to go on."""
    from ... import api
    from ...sensitivity.plots import write_plots

    own, options = call[AnalyzeCall], call[AnalyzeOptions]
    if options.kind is AnalysisKind.PRUNE:
        # refused and not ignored: somebody who gives it expects another result
        call.refuse(("scheme", "per", "weight_bits", "activation_bits"), "it is for kind=quant")
    else:
        call.refuse(("ratios", "criterion", "round_to", "recalibrate_bn", "limit"), "it is for kind=prune")
    path = Path(own.model)
    check_path(path)  # before PyTorch is imported, which takes seconds
    check_data_file(own.data)
    # before hours of measuring, not after them
    folder = output_folder(own.output or path.parent / f"{path.stem}_sensitivity")
    with bar("analysing") as progress:
        sensitivity = api.analyze(
            own.model, data=own.data, options=replace(options, folder=str(folder)), progress=progress
        )
    saved = sensitivity.save(folder / "sensitivity.json")
    for line in sensitivity.table():
        print(line)
    for plot in write_plots(sensitivity, folder):
        print(f"plot: {plot}")
    print(f"saved {saved}")
    if options.kind is AnalysisKind.PRUNE:
        shares = sensitivity.protected(own.limit)
        kept = sum(1 for share in shares.values() if not share)
        print(f"at a drop of {own.limit:g} {kept} of {len(shares)} groups stay whole")
        print(f"next: yoloquant prune {own.model} data={own.data} sensitivity={saved} tolerance={own.limit:g}")
    return 0
