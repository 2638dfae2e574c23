"""``yoloquant export``, bundles included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...bridge.checkpoint import check_path
from ...bridge.data_file import check_data_file
from ...bundle.bundle_options import BundleOptions
from ...io import output_folder
from ...options import TextOrNone, flatten, option, option_model
from ...options.shared import AnyCheckpoint, ResultsFolder, Schemes, Targets
from ...quantization.quantize_options import QuantizeOptions
from ...targets.onnx.graph_options import GraphOptions
from ..checking import Without
from ..parser import Call
from ..progress import bar
from ..show import Console, print_exports

if TYPE_CHECKING:
    from ...quantization.artifact import Artifact
    from ...targets.graph_form import GraphForm


@option_model
class ExportCall:
    """What is exported, and where to."""

    model: AnyCheckpoint
    targets: Targets = ("all",)
    data: TextOrNone = option(
        default=None, help="data yaml or folder of images that calibrate a plain checkpoint, or what a target lacks"
    )
    scheme: Schemes = ("auto",)
    bundle: bool = option(default=False, help="write a folder per device that builds, runs and proves itself there")
    output: ResultsFolder = None


PARTS = (ExportCall, QuantizeOptions, GraphOptions, Without(BundleOptions, ("data",)))


def run(call: Call) -> int:
    """Quantize if need be, export, and say how to go on."""
    from ... import api, bundle, targets
    from ...targets.prepare import prepare

    own = call[ExportCall]
    if not own.bundle:
        of_bundles = [name for name in flatten(BundleOptions) if name != "data"]
        # an option that changes nothing is a misunderstanding; every one of them is named
        call.refuse(of_bundles, "it is for bundles; pass bundle=true as well, or leave it out")
    check_path(Path(own.model))
    if own.data:
        check_data_file(own.data)
    # a bundle is for a device, which says what its targets are
    names = [d.wanted for d in bundle.resolve(own.targets)] if own.bundle else own.targets
    graph = call[GraphOptions].form
    chosen = targets.with_graph(targets.resolve(names), graph)
    if own.output:
        output_folder(own.output)  # before calibration, not after it
    artifact = prepare(
        own.model,
        chosen,
        data=own.data,
        scheme=own.scheme,
        options=call[QuantizeOptions],
        # a checkpoint with a plan is not calibrated again, so what was said about calibration must be refused, not lost
        named=[name for name in call.given if name == "scheme" or _of_quantization(name, graph)],
        listener=Console(),
    )
    if own.bundle:
        return _bundles(call, artifact)
    with bar("exporting") as progress:
        outcome = api.export(
            artifact,
            targets=[t.wanted for t in chosen],
            output=own.output,
            progress=progress,
            **call[GraphOptions].given,
        )
    print_exports(outcome)
    data = own.data or "<data yaml>"
    print(f"next: yoloquant validate {own.model} exports={outcome.folder} data={data}")
    return 0


def _of_quantization(name: str, graph: GraphForm) -> bool:
    """Whether an option says how to quantize; NMS in the graph needs none of that to give fewer rows."""
    return name in flatten(QuantizeOptions) and not (graph.nms and name in flatten(GraphOptions))


def _bundles(call: Call, artifact: Artifact) -> int:
    from ... import bundle

    own = call[ExportCall]
    options, graph = replace(call[BundleOptions], data=own.data), call[GraphOptions].form
    with bar("bundling") as progress:
        bundles = bundle.make(
            artifact, devices=own.targets, folder=own.output, options=options, graph=graph, progress=progress
        )
    for each in bundles:
        print(f"bundled {each.manifest.device}: {each.archive or each.path}")
        print(f"  id {each.manifest.id}: verify expect=<id> holds the device to this very bundle")
        for note in each.notes:
            print(f"  note: {note}")
    print("next, on the device, in the bundle's folder: pip install -r requirements.txt, then")
    print("      python -m yoloquant_runtime verify")
    return 0
