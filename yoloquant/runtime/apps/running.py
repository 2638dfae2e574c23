"""How a network is run and what counts as a detection, as the verbs ``predict`` and ``bench`` are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backends import Backend, BackendOptions, open_backend
from ..core.bundle_manifest import model_path, read
from ..core.detections import Selection
from ..core.detector import Detector
from ..core.model_info import ModelInfo
from ..errors import UsageError
from .settings import VerbSettings


@dataclass(frozen=True)
class RunnableModel:
    """What can be loaded.

    Attributes:
        backend: Name of its backend, or the class of one that lives outside this package.
        path: Its file or folder.
        info: What it holds.
        raw: Whether it returns raw heads.
        matched_conf: The confidence at which it does what the FP32 model does at its deployed one; None if that was
            not measured.
        matched_per_class: The same for every class.
    """

    backend: str | type[Backend]
    path: Path
    info: ModelInfo
    raw: bool = False
    matched_conf: float | None = None
    matched_per_class: tuple[float, ...] | None = None


MATCHED_CONF, MATCHED_PER_CLASS = "matched_conf", "matched_conf_per_class"
"""Where a bundle's manifest and an artifact's metadata state them."""
MATCHED = "matched"
"""Word for the confidence that validation matched with the FP32 model's."""
EACH_MATCHED = "matched_per_class"
"""Word for the confidences that it matched class by class."""


@dataclass(frozen=True)
class Running:
    """Settings of a network and of the selection of its detections.

    Attributes:
        threads: Threads of one inference, or of all workers together; None uses every core.
        device: Which device of the runtime; empty for its usual one.
        hint: What OpenVINO tunes itself for: ``latency`` or ``throughput``.
        precision: What OpenVINO computes float operations in. ``f32`` is the default because a bundle's accuracy was
            measured with it; ``auto`` lets OpenVINO choose, as Ultralytics does, which takes some 5 % less processor
            time for an INT8 YOLO11n on a CPU with bfloat16, and may move scores across a threshold.
        conf: Lowest score; None for the one that validation matched with the FP32 model's.
        per_class: Whether every class has a matched score of its own; without ``conf`` alone.
        iou: Overlap above which the weaker box of one class is dropped.
        max_det: Detections per image; if None 300, or what the model was quantized for if that is more.
        multi_label: Whether a box may be found once for each class, as in validation, or only for its best one.
    """

    threads: int | None = None
    device: str = ""
    hint: str = "latency"
    precision: str = "f32"
    conf: float | None = 0.25
    iou: float = 0.7
    max_det: int | None = None
    multi_label: bool = False
    per_class: bool = False

    @classmethod
    def parse(cls, settings: VerbSettings) -> Running:
        """Read a verb's arguments.

        Raises:
            UsageError: A value is not allowed.
        """
        return cls(
            settings.whole("threads", None),
            settings.text("device"),
            settings.text("hint", "latency"),
            settings.text("precision", "f32"),
            None if settings.text("conf") in (MATCHED, EACH_MATCHED) else settings.number("conf", 0.25, 0, 1),
            settings.number("iou", 0.7, 0, 1),
            settings.whole("max_det", None),
            settings.flag("multi_label", False),
            settings.text("conf") == EACH_MATCHED,
        )

    def open(self, network: RunnableModel) -> Detector:
        """Load a network.

        Raises:
            YoloquantError: See ``open_backend``.
        """
        # For a backend "" is the runtime's own choice.
        precision = "" if self.precision == "auto" else self.precision
        options = BackendOptions(self.threads, self.device, self.hint, network.raw, precision)
        each = _each_matched(network) if self.conf is None and self.per_class else None
        selection = Selection(
            conf=min(each) if each else _matched(network) if self.conf is None else self.conf,
            iou=self.iou,
            max_det=self.max_det or max(300, network.info.max_det),
            multi_label=self.multi_label,
            class_conf=each,
        )
        return Detector(open_backend(network.backend, network.path, network.info, options), selection)


def _matched(network: RunnableModel) -> float:
    if network.matched_conf is None:
        raise _unknown(network, MATCHED)
    return network.matched_conf


def _each_matched(network: RunnableModel) -> tuple[float, ...]:
    if network.matched_per_class is None:
        raise _unknown(network, EACH_MATCHED)
    return network.matched_per_class


def _unknown(network: RunnableModel, word: str) -> UsageError:
    return UsageError(
        f"conf={word} is not known for '{network.path}': 'yoloquant validate' measures it and writes it to the export "
        "folder, and bundles that are made afterwards hold it; or give conf=<number>"
    )


@dataclass(frozen=True)
class BundleOpener:
    """Loads a bundle, once its files are proven; can be sent to another process.

    Attributes:
        path: The bundle's folder.
        running: How its network is run.
    """

    path: str
    running: Running = field(default_factory=Running)

    def network(self) -> RunnableModel:
        """What it holds, once its files are proven.

        Raises:
            BundleError: A file is missing or was changed.
        """
        folder = Path(self.path)
        manifest = read(folder)
        matched = matched_confidences(manifest.source, manifest.info)
        return RunnableModel(manifest.backend, model_path(folder, manifest), manifest.info, manifest.raw, *matched)

    def __call__(self) -> Detector:
        """Load it.

        Raises:
            BundleError: A file is missing or was changed.
            YoloquantError: See ``open_backend``.
        """
        return self.running.open(self.network())


def matched_confidences(stated: Mapping[str, Any], info: ModelInfo) -> tuple[float | None, tuple[float, ...] | None]:
    """The matched confidence as files state it, and that of every class; None where there is none."""
    each = stated.get(MATCHED_PER_CLASS)
    values = [_confidence(value) for value in each] if isinstance(each, list) else []
    known = tuple(value for value in values if value is not None)
    # One for every class, or the wrong class would get a threshold.
    complete = bool(known) and len(known) == len(values) == len(info.names)
    return _confidence(stated.get(MATCHED_CONF)), known if complete else None


def _confidence(value: object) -> float | None:
    # Metadata come from anywhere, and what is no confidence must not become a threshold.
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1 else None


def own_bundle() -> str:
    """The folder that holds this package, which is the bundle that it came in."""
    # From apps/ over the package to the bundle.
    return str(Path(__file__).resolve().parents[2])
