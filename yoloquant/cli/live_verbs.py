"""The verbs ``predict`` and ``bench``, whose arguments the runtime defines and reads as texts."""

from __future__ import annotations

from collections.abc import Iterable

from ..runtime.apps import keys
from ..runtime.apps.settings import Key
from .parser import Option, Verb


def _options(found: Iterable[Key], required: tuple[str, ...]) -> tuple[Option, ...]:
    return tuple(Option(key.name, key.help, required=key.name in required) for key in found)


PREDICT = Verb(
    "predict",
    "Detect in a camera, stream, video or images with an exported model; show or write what was found.",
    _options(keys.PREDICT, ("model", "source")),
    "yoloquant predict model=best_exports/best_openvino_model source=0 output=found.mp4",
)

BENCH = Verb(
    "bench",
    "Measure latency, throughput, processor time, memory, temperature and power of exports that take turns.",
    _options(keys.BENCH, ("model",)),
    "yoloquant bench model=best_exports source=images/ output=bench.json",
)
