"""Does every healthy bundle verify on every processor, and does a file with one layer's scale off by 2 % not?

    python tools/check_bundles.py models=yolo11n.pt,yolo11n-seg.pt data=a.yaml,b.yaml cpu_root=/var/tmp/aarch64

Each model is calibrated and bundled for every device, and the bundle's own ``verify`` runs on this machine and, with
``cpu_root=``, on emulated aarch64. Then files that a faulty exporter would write take the healthy file's place, their
hashes put right in the manifest: the integers stay, and the weight scale of one layer is off, for some layers from the
first to the last. They are verified on this machine against the healthy file's golden results; and bundling such a file
itself is tried, which reads its scales back.

Options (``key=value`` or ``--key value``): models, data (a yaml or folder for each model), devices (raspberrypi,onnx),
imgsz (320), images (32, calibration), golden (3, inputs in a bundle), layers (5, spoiled one at a time), off (2,
percent), cpu_root (the aarch64 root; that processor is left out without one), output (a folder for the bundles), out
(a Markdown file).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from tools.bench.simulated import print_report
from tools.bench.table import table
from tools.options import positive
from yoloquant import api
from yoloquant.bundle import BundleOptions, device_named, write
from yoloquant.bundle.devices import BundleDevice
from yoloquant.bundle.verify_on import ProcessorCheck, verify_on
from yoloquant.errors import TargetError, UsageError
from yoloquant.graph.trace import Graph
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.insert import copy_module
from yoloquant.quantization.qparams import QParams
from yoloquant.runtime.core.bundle_manifest import FILE_NAME, model_path, read
from yoloquant.runtime.core.folder_check import FileEntry, file_sha256
from yoloquant.targets.base import Target
from yoloquant.targets.export import export
from yoloquant.types import ExportedModel

DEFAULTS = {
    "models": "yolo11n.pt",
    "data": "coco8.yaml",
    "devices": "raspberrypi,onnx",
    "imgsz": "320",
    "images": "32",
    "golden": "3",
    "layers": "5",
    "off": "2",
    "cpu_root": "",
    "output": "",
    "out": "",
}
HEAD = ("model", "device", "file", "processor", "verify", "outputs differ by (limit)", "detections that agree")
NATIVE, AARCH64 = "native", "aarch64"
BUNDLING = "at export"


def spoiled(artifact: Artifact, target: Target, layer: int, share: float) -> tuple[str, Artifact]:
    """The artifact whose exports have the same integers, and one layer's weight scale off by a share.

    Args:
        artifact: A calibrated artifact.
        target: Whose plan is spoiled.
        layer: Which of the plan's weights, in execution order.
        share: What is added to the scale, of itself.

    Returns:
        The name of the layer, and a copy.
    """
    plan = artifact.plan_for(target.scheme)
    point = plan.weights[layer]
    assert point.params is not None
    factor = np.float32(1 + share)
    wrong = plan.with_params({point.name: QParams(point.params.scale * factor, point.params.zero_point)}, "spoiled")
    path = point.name.removesuffix(":weight")
    module = copy_module(artifact.graph)
    with torch.no_grad():  # the same integers, of larger weights on a coarser grid
        module.get_parameter(f"{path}.weight").mul_(float(factor))
    traced = artifact.traced.described_as(artifact.model)
    names = {name: artifact.graph.fx_name(name) for name in artifact.graph.ops}
    traced.__dict__["graph"] = Graph(module, artifact.info, names, artifact.graph.ops)
    return path, replace(artifact, traced=traced, plans={**artifact.plans, plan.scheme: wrong})


def exchange(bundle: Path, model: Path) -> None:
    """Put another model file into a bundle as if it had been exported with it."""
    manifest = read(bundle, check=False)
    place = model_path(bundle, manifest)
    if model.is_dir():
        shutil.rmtree(place)
        shutil.copytree(model, place)
    else:
        shutil.copyfile(model, place)
    files = {name: FileEntry(file_sha256(bundle / name), (bundle / name).stat().st_size) for name in manifest.files}
    text = replace(manifest, files=files).signed().text()
    (bundle / FILE_NAME).write_text(text, encoding="utf-8", newline="\n")


def checked(model: str, data: str, folder: Path, options: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """The table's rows of one model."""
    devices = [device_named(name) for name in options["devices"].split(",")]
    schemes = list(dict.fromkeys(d.target.scheme.name for d in devices))
    size, images = positive(options["imgsz"]), positive(options["images"])
    artifact = api.quantize(model, data=data, scheme=schemes, imgsz=size, images=images)
    how = BundleOptions(golden_images=positive(options["golden"]), threads=1)
    for device in devices:
        stem, place = artifact.stem, folder / f"{artifact.stem}-{device.name}"
        (exported,) = export(artifact, [device.target], folder=folder / "exports").exports
        write(artifact, exported, device=device, folder=place, options=how)
        processors = [NATIVE, AARCH64] if options["cpu_root"] else [NATIVE]
        for check in verify_on(place, processors, root=options["cpu_root"]):
            yield (stem, device.name, "healthy", *_cells(check))
        count = len(artifact.plan_for(device.target.scheme).weights)
        for layer in np.linspace(0, count - 1, positive(options["layers"])).astype(int).tolist():
            share = positive(options["off"]) / 100
            name, faulty = spoiled(artifact, device.target, layer, share)
            (wrong,) = export(faulty, [device.target], folder=folder / "spoiled").exports
            yield (
                stem,
                device.name,
                f"{name} off by {share:.0%}",
                BUNDLING,
                *_bundled(artifact, wrong, device, place, how),
            )
            exchange(place, wrong.path)
            for check in verify_on(place, [NATIVE]):
                yield (stem, device.name, f"{name} off by {share:.0%}", *_cells(check))


def _bundled(
    artifact: Artifact, exported: ExportedModel, device: BundleDevice, place: Path, how: BundleOptions
) -> tuple[str, str, str]:
    """What bundling a file says, beside the healthy bundle."""
    try:
        write(artifact, exported, device=device, folder=place.with_name(f"{place.name}-refused"), options=how)
    except TargetError as exc:
        return f"refused: {exc}".partition(";")[0], "", ""
    return "taken", "", ""


def _cells(check: ProcessorCheck) -> tuple[str, ...]:
    if check.result == "error":
        return check.processor, f"error: {check.lines[0]}", "", ""
    values = {c["name"]: c["values"] for c in check.details["checks"]}
    outputs, found = values["golden outputs"], values["golden detections"]
    parts = (f"{part} {value:.4f} ({outputs['limits'][part]:g})" for part, value in outputs["differences"].items())
    return check.processor, check.result, ", ".join(parts), f"{found['same']} of {found['total']}"


def run(options: Mapping[str, str]) -> str:
    """Check every model.

    Returns:
        The report.

    Raises:
        YoloquantError: A model, the data or an option cannot be used.
    """
    models, data = options["models"].split(","), options["data"].split(",")
    if len(models) != len(data):
        raise UsageError(f"data= names {len(data)} sets and models= {len(models)} models; give one for each")
    torch.set_num_threads(1)
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory(prefix="bundles-") as scratch:
        for model, source in zip(models, data, strict=True):
            for row in checked(model, source, Path(options["output"] or scratch), options):
                print(" | ".join(row), file=sys.stderr, flush=True)  # emulation takes minutes
                rows.append(row)
    return table(HEAD, rows) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Run the check and print its table."""
    return print_report(arguments, DEFAULTS, __doc__ or "", run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
