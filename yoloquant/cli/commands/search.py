"""``yoloquant search``."""

from __future__ import annotations

import json
from pathlib import Path

from ...bridge.checkpoint import check_path
from ...bridge.data_file import check_data_file
from ...io import output_folder, write_text
from ...options import PathOrNone, Text, option, option_model
from ...sensitivity.float_search_options import FloatSearchOptions, SearchGoal
from ..parser import Call
from ..progress import bar


@option_model
class SearchCall:
    """What is searched, on what."""

    model: Text = option(help="trained checkpoint (.pt), plain or quantized")
    data: Text = option(help="data yaml, or a folder of images unless map_drop is given")
    output: PathOrNone = option(default=None, help="folder for the result; the checkpoint's own if not given")


PARTS = (SearchCall, FloatSearchOptions)


def run(call: Call) -> int:
    """Search, save the plan, and say how to go on; 1 if nothing within the share meets the budget."""
    from ... import api, targets

    own, options = call[SearchCall], call[FloatSearchOptions]
    if options.goal is SearchGoal.LATENCY:
        call.refuse(
            ("fidelity", "map_drop", "share", "slower", "images", "ranking_images"),
            "goal=latency measures time and no accuracy",
        )
    elif options.slower is None:
        call.refuse(("threads",), "it is for goal=latency, and for slower=")
    model = Path(own.model)
    check_path(model)
    check_data_file(own.data)
    folder = output_folder(own.output or model.parent)
    with bar("searching") as progress:
        search = api.search(own.model, data=own.data, options=options, progress=progress)
    # of a checkpoint that 'quantize' wrote: not best_int8_int8.pt
    stem = model.stem.removesuffix("_int8")
    listing = folder / f"{stem}_float_layers.json"
    # also where nothing meets the budget: what was measured says how far away it is
    write_text(listing, json.dumps(search.to_dict(), indent=1))
    print(search.summary())
    print(f"saved {listing}: every plan that was measured")
    if not search.met:
        raised = "share=" if options.slower is None else "slower= or share="
        print(f"nothing was saved to export: raise {raised}, lower the budget, or train with 'yoloquant train'")
        return 1
    path = search.artifact.save(folder / f"{stem}_int8.pt")
    print(f"saved {path}: plan '{search.scheme}' as it is said above")
    # the portable plan is no runtime's own
    where = search.scheme if search.scheme in targets.names() else "<target>"
    print(f"next: yoloquant export {path} targets={where}")
    return 0
