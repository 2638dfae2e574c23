"""Golden inputs and the accuracy figure, made on the export machine by the runtime that goes into the bundle."""

from __future__ import annotations

import json
import logging
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.convert import as_yolo
from ..data.image_files import is_without_yaml
from ..errors import ArtifactError, DataError, OutputError, UsageError
from ..runtime.apps.accuracy import find_images, measure
from ..runtime.apps.data_fingerprint import fingerprint
from ..runtime.apps.golden import (
    SELECTION,
    Golden,
    GoldenImage,
    GoldenOutcome,
    output_errors,
    pooled,
    rows,
    run,
    write_outputs,
)
from ..runtime.backends import Backend, BackendOptions
from ..runtime.core.bundle_manifest import ExportAccuracy
from ..runtime.core.detector import Detector
from ..targets.exports import content_sha256
from ..types import ExportedModel, HeadLayout, ModelInfo, Verdict
from .bundle_options import BundleOptions
from .devices import BundleDevice
from .images import candidates, data_set
from .tolerances import FACTOR, MOST, derive_tolerances, limited_as

if TYPE_CHECKING:
    from ..evaluation.results import TargetResult, ValidationResult

logger = logging.getLogger(__name__)

FOLDER = "golden"


@dataclass(frozen=True)
class Tensor:
    """An input or output of the network, for people.

    Attributes:
        name: ``input``, or ``output_0`` and so on.
        dtype: Its type in the model.
        shape: Its shape.
        scale: Step of an integer tensor; None for a float one.
        zero_point: Integer that stands for 0; None for a float tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Expected:
    """What the export machine measured.

    Attributes:
        golden: Golden inputs; their files lie in the bundle.
        accuracy: The figure that devices are held to; None if neither data nor a report was given.
        tensors: The network's input and outputs.
        notes: Remarks for people.
    """

    golden: Golden
    accuracy: ExportAccuracy | None
    tensors: tuple[Tensor, ...]
    notes: tuple[str, ...]


def make_expected(exported: ExportedModel, device: BundleDevice, options: BundleOptions, bundle: Path) -> Expected:
    """Run the model on the export machine and write the golden files into a bundle.

    Args:
        exported: The artifact.
        device: What the bundle is for.
        options: Images, report and data.
        bundle: Folder that becomes the bundle.

    Raises:
        TargetError: The model cannot be run here.
        DataError: The data are not usable.
        OutputError: A file cannot be written.
    """
    # noted in the manifest: what is expected of the device was not computed by its runtime
    simulated = not device.target.capabilities.runs_here
    # one runtime for all figures, so that they belong together
    with Detector(_open(exported, device, options), SELECTION) as detector:
        chosen = _choose(detector, options, exported.info.imgsz)
        images = tuple(_store(name, image, outcome, bundle) for name, image, outcome in chosen)
        backend = detector.backend
        made_with = {"backend": backend.name, "version": backend.version, "machine": platform.machine()}
        # a simulation has no second kernels
        noise = None if simulated else kernel_noise(exported, device, options, chosen)
        golden = Golden(images, derive_tolerances(noise), {**made_with, "simulated": simulated, "noise": noise})
        accuracy = _reported(options.report, exported)
        # a report's figure was judged by a gate and goes before one of our own
        if accuracy is None and options.data is not None:
            accuracy = _measured(detector, options)
        return Expected(golden, accuracy, _tensors(backend, chosen[0][2]), _notes(chosen, golden))


def _open(exported: ExportedModel, device: BundleDevice, options: BundleOptions) -> Backend:
    """The model in its own runtime, or what simulates that."""
    raw = exported.layout is HeadLayout.RAW
    return device.target.open(exported, BackendOptions(threads=options.threads, raw=raw))


def kernel_noise(
    exported: ExportedModel,
    device: BundleDevice,
    options: BundleOptions,
    chosen: list[tuple[str, np.ndarray, GoldenOutcome]],
) -> dict[str, float]:
    """How far other correct kernels of the runtime are from the golden outputs, relative to their spread."""
    choice = BackendOptions(threads=options.threads, raw=exported.layout is HeadLayout.RAW, optimize=False)
    errors = []
    with Detector(device.target.open(exported, choice), SELECTION) as other:
        backend = other.backend
        for _, image, outcome in chosen:
            expected = [np.array(o) for o in backend.decode(outcome.outputs)]  # copies: decoding may reuse memory
            got = backend.decode(run(other, image).outputs)
            parts = (other.task.output_parts(tuple(o), backend.layout, other.info) for o in (expected, got))
            errors.append(output_errors(*parts))
    return pooled(errors)


def _choose(
    detector: Detector, options: BundleOptions, imgsz: tuple[int, int]
) -> list[tuple[str, np.ndarray, GoldenOutcome]]:
    """The images on which most is found, because they tell most."""
    found = [(name, image, run(detector, image)) for name, image in candidates(options.data, imgsz)]
    if not found:
        raise DataError("there is no image that could become a golden input; give data=<data yaml or folder>")
    # stable: of equal images the first ones, the same on every call
    found.sort(key=lambda item: -int((item[2].detections.confidence >= 0.25).sum()))
    # numbered: images of two folders may share a name
    return [(f"{index}_{name}", image, outcome) for index, (name, image, outcome) in enumerate(found)][
        : options.golden_images
    ]


def _store(name: str, image: np.ndarray, outcome: GoldenOutcome, bundle: Path) -> GoldenImage:
    import cv2

    # a device's file system may know neither the script nor the length
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:60]
    folder = bundle / FOLDER
    folder.mkdir(exist_ok=True)
    # PNG: what a device decodes must be these pixels, bit by bit
    ok, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not ok:
        raise OutputError(f"the golden image '{name}' cannot be encoded as PNG")
    (folder / f"{stem}.png").write_bytes(encoded.tobytes())
    write_outputs(folder / f"{stem}.npz", outcome.outputs)
    return GoldenImage(f"{FOLDER}/{stem}.png", f"{FOLDER}/{stem}.npz", outcome.input_sha256, rows(outcome.detections))


def _tensors(backend: Backend, outcome: GoldenOutcome) -> tuple[Tensor, ...]:
    scale, zero_point = backend.input_quantization or (None, None)
    first = Tensor("input", str(np.dtype(backend.input_dtype)), tuple(backend.input_shape), scale, zero_point)
    # as the backend hands them on: dequantized
    rest = (Tensor(f"output_{i}", "float32", o.shape) for i, o in enumerate(outcome.outputs))
    return (first, *rest)


def _notes(chosen: list[tuple[str, np.ndarray, GoldenOutcome]], golden: Golden) -> tuple[str, ...]:
    notes = []
    noise = golden.made_with.get("noise") or {}
    apart = [f"{part} by {value:.3f}" for part, value in noise.items() if FACTOR * value > MOST[limited_as(part)]]
    if apart:
        notes.append(
            f"kernels of this runtime differ here in {' and '.join(apart)} of their spread, so other processors may "
            "find other detections; overflowing sums are the usual cause, which a plan made by this release keeps away"
        )
    if not sum(int((o.detections.confidence >= golden.tolerances.conf).sum()) for _, _, o in chosen):
        notes.append(
            "nothing is detected on any golden input, so only raw outputs are compared; give data=<data yaml> with "
            "images that show the model's classes"
        )
    return tuple(notes)


def _reported(report: Any, exported: ExportedModel) -> ExportAccuracy | None:
    """The accuracy of an artifact in a validation's result or in its report.json.

    Raises:
        YoloquantError: See ``reported_row``.
    """
    if report is None:
        return None
    row, whole = reported_row(report, exported)
    if row.accuracy is None:
        return None  # validated without labels
    digest = str(whole.environment.get("data_sha256", ""))
    return ExportAccuracy(_metrics(row.accuracy), whole.images, whole.labels, digest, source="report")


def reported_row(report: Any, exported: ExportedModel) -> tuple[TargetResult, ValidationResult]:
    """An artifact's row in a validation's result or in its report.json, and the result.

    Raises:
        ArtifactError: The report cannot be read, is of another artifact or input size, or its verdict is not a pass.
        UsageError: It has no such target.
    """
    from ..evaluation.results import ValidationResult
    from ..report import from_json

    if not isinstance(report, ValidationResult):
        try:
            report = from_json(Path(report).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise ArtifactError(f"report '{report}' cannot be read ({getattr(exc, 'strerror', '') or exc})") from exc
    target = exported.name
    # several artifacts of one target are told apart behind a colon
    rows = [row for row in report.targets if row.target == target or row.target.startswith(f"{target}:")]
    if not rows:
        raise UsageError(f"the report has no target '{target}'; it has {', '.join(r.target for r in report.targets)}")
    digest = content_sha256(exported.path)
    # the very file that goes into the bundle; if it is none of them, the check below says so
    row = next((row for row in rows if row.sha256 == digest), rows[0])
    _check_row(row, report, exported, digest)
    return row, report


def _metrics(found: Any) -> dict[str, float]:
    """Every metric of a report's row."""
    return dict(found.metrics) or {"map50_95": found.map50_95, "map50": found.map50}


def _check_row(row: TargetResult, report: ValidationResult, exported: ExportedModel, digest: str) -> None:
    """Refuse figures that are not this artifact's, or that no release may stand on."""
    if report.imgsz != exported.info.imgsz:
        raise ArtifactError(
            f"the report is of input size {list(report.imgsz)}, the artifact's is {list(exported.info.imgsz)}; "
            "validate the artifact that goes into the bundle"
        )
    # accuracy is a promise to a device: it must be of these bytes
    if row.sha256 != digest:
        raise ArtifactError(
            f"the report is of another artifact for {row.target} ({row.path}, sha256 {row.sha256[:12] or 'unknown'}) "
            f"than the one that goes into the bundle ({digest[:12]}); validate an export of the same checkpoint"
        )
    if row.verdict is not Verdict.PASS:
        raise ArtifactError(
            f"the report's verdict on {row.target} is {row.verdict.value}; a bundle is held to figures that passed: "
            "validate on more images, or leave report= out"
        )


def _measured(detector: Detector, options: BundleOptions) -> ExportAccuracy | None:
    """The accuracy on the data's labels, measured as a device measures it; None without labels."""
    assert options.data is not None
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
        source = _listed(options.data, detector.info, Path(scratch))
        # a classifier's labels are the names of folders: images that lie in none have no labels, and no wrong ones
        flat = detector.task.class_folders and any(i.parent == source for i in find_images(source, detector.info.task))
        data = None if flat else fingerprint(source, detector.info, options.limit)
        # no reason to fail: golden inputs prove the same results without labels
        if data is None or not data.labels:
            logger.warning("'%s' has no labels, so no accuracy goes into the bundle", options.data)
            return None
        accuracy = measure(detector, source, limit=options.limit)
    return ExportAccuracy(accuracy.metrics, accuracy.images, data.labels, data.sha256)


def _listed(data: str | os.PathLike[str], info: ModelInfo, scratch: Path) -> Path:
    """The data as the device runtime reads it: a folder stays one, a yaml becomes one of the image files it means here.

    Ultralytics looks for data sets in places that only this machine has.
    """
    # with the labels of the model's task where the data are of another format
    data = as_yolo(data, task=info.task, names=info.names)
    if is_without_yaml(Path(data)):
        return Path(data)
    path = scratch / "data.yaml"
    found = data_set(data)
    # absolute paths, and JSON, which is YAML too
    content = {"val": [str(image.path) for image in found.images], "names": list(found.names)}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
