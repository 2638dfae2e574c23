"""The README of a bundle: one template, with a section per device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.tasks import spec_of
from ..types import ExportedModel, HeadLayout
from .devices import Device

if TYPE_CHECKING:
    from .expected import Expected

_TEMPLATE = "readme.md.j2"


def render(device: Device, exported: ExportedModel, expected: Expected, model: str) -> str:
    """The README of one bundle.

    Args:
        device: What it is for.
        exported: The model.
        expected: What was measured on the export machine.
        model: Path of the model inside the bundle.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("yoloquant.bundle", "templates")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text: str = environment.get_template(_TEMPLATE).render(
        device=device,
        exported=exported,
        info=exported.info,
        model=model,
        planned=len(exported.metadata.get("planned_convs", ())),
        compiled=exported.metadata.get("edgetpu", {}).get("compiled", ""),
        expected=expected,
        measured=spec_of(exported.info.task).named(expected.accuracy.metrics, every=True) if expected.accuracy else "",
        tolerances=expected.golden.tolerances,
        made_with=expected.golden.made_with,
        raw=exported.layout is HeadLayout.RAW,
        fractions=device.backend == "litert" and exported.layout is HeadLayout.DECODED,
        anchors=sum((exported.info.imgsz[0] // s) * (exported.info.imgsz[1] // s) for s in exported.info.strides),
    )
    return text
