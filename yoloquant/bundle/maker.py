"""Export a quantized model and write a bundle for each device that is asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..io import output_folder
from ..targets import resolve, with_graph
from ..targets.export import export
from ..targets.graph_form import PLAIN, GraphForm
from .bundle_options import Bundle, BundleOptions
from .devices import resolve as resolve_devices
from .matched import noted_beside
from .writer import write

if TYPE_CHECKING:
    from ..quantization.artifact import Artifact


def make(
    artifact: Artifact,
    *,
    devices: str | Iterable[str],
    folder: str | os.PathLike[str] | None = None,
    options: BundleOptions | None = None,
    graph: GraphForm = PLAIN,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Bundle, ...]:
    """Export and bundle.

    Args:
        artifact: A quantized model.
        devices: Names of devices, or ``all``.
        folder: Where the bundles go, each as ``<model>-<device>``, with the variant behind it if one is asked for; a
            folder beside the checkpoint if None.
        options: What goes into them.
        graph: What the exported graphs do besides the network.
        progress: Called before and after every device.

    Returns:
        The bundles, in the order asked.

    Raises:
        UsageError: A device is unknown, or cannot have such graphs.
        TargetError: A target cannot be built, or its model cannot be run here.
        OutputError: The folder cannot be written.
    """
    if graph.several:
        raise UsageError("a device's camera gives one image at a time: leave batch= and dynamic= of a bundle out")
    chosen = resolve_devices(devices)
    out = output_folder(folder or _beside(artifact))
    # devices share targets, and a target is checked once
    targets = list(dict.fromkeys(device.wanted for device in chosen))
    # everything that can be refused is refused before any work starts
    for target in with_graph(resolve(targets), graph):
        target.require()
        target.check(artifact)
    # exports are a step on the way: what stays is in the bundles
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
        built: dict[str, Bundle] = {}
        for index, device in enumerate(chosen):
            if progress:
                progress(index, len(chosen), device.folder)
            chosen_target = with_graph(resolve(device.wanted), graph)
            (exported,) = export(artifact, chosen_target, folder=Path(scratch) / device.folder).exports
            noted = noted_beside(artifact, exported)
            exported = replace(exported, metadata={**exported.metadata, **noted})
            place = out / f"{artifact.stem}-{device.folder}"
            built[device.folder] = write(artifact, exported, device=device, folder=place, options=options)
        if progress:
            progress(len(chosen), len(chosen), "")
    return tuple(built.values())


def _beside(artifact: Artifact) -> Path:
    source = Path(artifact.model.source)
    # a live model has no place of its own
    parent = source.parent if source.suffix == ".pt" and source.is_file() else Path.cwd()
    return parent / f"{artifact.stem}_bundles"
