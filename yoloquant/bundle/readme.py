"""The README of a bundle: one template, with a section on starting that each device brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.tasks import spec_of
from ..types import ExportedModel, HeadLayout
from .devices import BundleDevice

if TYPE_CHECKING:
    from .expected import Expected

_TEMPLATE, _START = "readme.md.j2", "start.md.j2"


def render(device: BundleDevice, exported: ExportedModel, expected: Expected, model: str) -> str:
    """The README of one bundle.

    Args:
        device: What it is for.
        exported: The model.
        expected: What was measured on the export machine.
        model: Path of the model inside the bundle.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("yoloquant.bundle", "templates")
    # without autoescape: this is Markdown, read as it stands
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    decoded = exported.layout is HeadLayout.DECODED
    known = {
        "device": device.device,
        "exported": exported,
        "info": exported.info,
        "model": model,
        "task": spec_of(exported.info.task),
        "box_unit": device.target.box_unit if decoded else "pixels of the input",
        "anchors": sum((exported.info.imgsz[0] // s) * (exported.info.imgsz[1] // s) for s in exported.info.strides),
    }
    guide = device.device.guide
    # a target of another package brings its own section as a file
    start = environment.get_template(_START) if guide is None else environment.from_string(guide.read_text("utf-8"))
    text: str = environment.get_template(_TEMPLATE).render(
        **known,
        start=start.render(**known).strip(),
        expected=expected,
        measured=spec_of(exported.info.task).named(expected.accuracy.metrics, every=True) if expected.accuracy else "",
        tolerances=expected.golden.tolerances,
        made_with=expected.golden.made_with,
        raw=exported.layout is HeadLayout.RAW,
    )
    return text
