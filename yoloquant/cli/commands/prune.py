"""``yoloquant prune``."""

from __future__ import annotations

from pathlib import Path

from ...bridge.checkpoint import check_path
from ...bridge.data_file import check_data_file
from ...options import PathOrNone, TextOrNone, option, option_model
from ...options.shared import InputSize, TrainedCheckpoint
from ...pruning.criteria import PruningKind
from ...pruning.prune_options import FINE_TUNING, PruneOptions
from ..checking import Without
from ..parser import Call
from ..progress import bar


@option_model
class PruneCall:
    """What is pruned, and what comes of it."""

    model: TrainedCheckpoint
    data: TextOrNone = option(
        default=None, help="data yaml or folder; BatchNorm and taylor are measured on its training images"
    )
    imgsz: InputSize = None
    dry_run: bool = option(default=False, help="only print what would go")
    latency: bool = option(default=False, help="measure the latency of the plan in the runtime")
    save_plan: PathOrNone = option(
        default=None, help="JSON file to write the plan to, to be edited and applied with plan="
    )
    output: PathOrNone = option(default=None, help="checkpoint to write; <model>_pruned.pt if not given")


PARTS = (PruneCall, Without(PruneOptions, FINE_TUNING))


def run(call: Call) -> int:
    """Plan, remove, and say how to go on."""
    from ... import api

    own, options = call[PruneCall], call[PruneOptions]
    if options.sensitivity is None:
        # options of one kind of pruning would be ignored in silence by the others
        call.refuse(("tolerance",), "it is the drop that an analysis allows, and sensitivity= names none")
    if options.kind is not PruningKind.NM:
        call.refuse(("permutation",), "it is for kind=2:4")
    if options.plan is not None:
        call.refuse(
            ("amount", "target", "kind", "criterion", "scope", "round_to", "max_ratio", "ignored", "sensitivity"),
            "plan= says already what goes",
        )
    check_path(Path(own.model))  # before PyTorch is imported, which takes seconds
    if own.data:
        check_data_file(own.data)
    with bar("following the channels"):
        result = api.prune(
            own.model,
            data=own.data,
            options=options,
            imgsz=own.imgsz,
            output=own.output,
            dry_run=own.dry_run,
            latency=own.latency,
        )
    for line in result.report:
        print(line)
    if own.save_plan and result.plan is not None:
        print(f"saved {result.plan.save(Path(own.save_plan))}")
    # a dry run wrote nothing
    if result.path is None:
        print("next: the same without dry_run, or edit the plan (save_plan=) and give plan=")
        return 0
    print(f"saved {result.path}")
    data = own.data or "<data yaml>"
    print(f"next: yoloquant train {own.model} data={data} prune={options.amount} prunes and fine-tunes it")
    return 0
