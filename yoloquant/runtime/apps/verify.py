"""Prove a bundle on the machine that it lies on: files, golden inputs, and accuracy where there is a data set."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import BackendOptions, backend_class, open_backend
from ..core.bundle_manifest import BundleManifest, model_path, read
from ..core.detector import Detector
from ..errors import ArtifactError, BundleError, TargetError
from ..io.images import read_image
from .accuracy import measure
from .data_fingerprint import fingerprint
from .golden import (
    SELECTION,
    Agreement,
    Golden,
    GoldenImage,
    GoldenOutcome,
    compare_detections,
    from_rows,
    output_errors,
    pooled,
    read_outputs,
    run,
)
from .requirements import check_requirements


# The package has a `Verdict` of its own, which the runtime cannot import: it comes to devices alone.
class VerifyResult(str, Enum):
    """Outcome of one check, or of all."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


NOTHING = "the bundle holds no golden input, so nothing was compared; export it again"
EXIT_CODES = {VerifyResult.PASS: 0, VerifyResult.FAIL: 1, VerifyResult.INCONCLUSIVE: 3}


@dataclass(frozen=True)
class VerifyCheck:
    """One thing that was checked.

    Attributes:
        name: ``files``, ``engine``, ``runtime``, ``golden outputs``, ``golden detections`` or ``accuracy``.
        result: Outcome.
        message: One sentence for people.
        values: What was measured, and its limits.
    """

    name: str
    result: VerifyResult
    message: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verification:
    """Outcome of a verification.

    Attributes:
        bundle: The bundle's id.
        target: Target that wrote the model.
        device: Device that the bundle is for.
        checks: Everything that was checked.
        environment: Runtime, versions and processor of this machine.
        seconds: Wall time.
    """

    bundle: str
    target: str
    device: str
    checks: tuple[VerifyCheck, ...]
    environment: Mapping[str, Any]
    seconds: float

    @property
    def result(self) -> VerifyResult:
        """The worst of all checks."""
        results = {check.result for check in self.checks}
        return next((r for r in (VerifyResult.FAIL, VerifyResult.INCONCLUSIVE) if r in results), VerifyResult.PASS)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT_CODES[self.result]

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON; numbers that are not finite become None."""
        data = {**asdict(self), "result": self.result.value, "exit_code": self.exit_code}
        plain: dict[str, Any] = _plain(data)
        return plain


@dataclass(frozen=True)
class VerifyOptions:
    """How a bundle is verified.

    Attributes:
        data: Folder in YOLO layout, or its data yaml (its val split), to measure accuracy on; none if empty.
        limit: Score only so many images; all if None.
        expect: The bundle's id as the export printed it; any if empty.
        backend: Threads, device and hint of the runtime.
    """

    data: str = ""
    limit: int | None = None
    expect: str = ""
    backend: BackendOptions = field(default_factory=BackendOptions)


def verify(folder: str | Path, options: VerifyOptions | None = None) -> Verification:
    """Verify a bundle. On a Jetson, its engine is built first if none is there for this device.

    Args:
        folder: The bundle's folder.
        options: What to measure, and how the model is run.

    Raises:
        BundleError: A file is missing, changed or not part of the bundle.
        DataError: The data set is not usable.
        MissingRuntimeError: The runtime's library is missing, or too old.
        TargetError: The runtime cannot load or run the model, or an engine cannot be built.
    """
    options = options or VerifyOptions()
    start = time.perf_counter()
    folder = Path(folder)
    manifest = read(folder, expect=options.expect)
    # Before a runtime is loaded: a damaged manifest must not look like a runtime that fails.
    golden = Golden.from_dict(manifest.golden)
    checks = [VerifyCheck("files", VerifyResult.PASS, f"{len(manifest.files)} files are as exported")]
    # Before an engine is built: that takes minutes, and needs the same library.
    library = check_requirements(manifest)
    checks += _engine_checks(folder, manifest, options.backend)
    version = library
    # An engine that is not what was planned is not run: its differences would only hide why.
    if checks[-1].result is VerifyResult.PASS:
        with open_detector(folder, manifest, options.backend) as detector:
            version = detector.backend.version
            found = f"{library} {version}".strip()
            checks.append(VerifyCheck("runtime", VerifyResult.PASS, f"{manifest.backend} runs the model ({found})"))
            checks += _golden_checks(folder, golden, detector)
            if options.data:
                checks.append(_accuracy_check(detector, manifest, golden, options))
    environment = {**_environment(), "backend": manifest.backend, "backend_version": version}
    seconds = time.perf_counter() - start
    return Verification(manifest.id, manifest.target, manifest.device, tuple(checks), environment, seconds)


def open_detector(folder: Path, manifest: BundleManifest, options: BackendOptions) -> Detector:
    """The bundle's model, selecting as golden results are selected.

    Raises:
        MissingRuntimeError: The runtime's library is missing.
        TargetError: The runtime cannot load the model; on a Jetson, that its engine has yet to be built.
    """
    options = replace(options, raw=manifest.raw)
    try:
        backend = open_backend(manifest.backend, model_path(folder, manifest), manifest.info, options)
    except ArtifactError as exc:  # the files are as exported, so it is this machine that cannot run them (yet)
        raise TargetError(str(exc)) from exc
    return Detector(backend, SELECTION)


def _engine_checks(folder: Path, manifest: BundleManifest, options: BackendOptions) -> list[VerifyCheck]:
    """What the backend had to build on the device before the model runs.

    Raises:
        TargetError: It cannot be built.
    """
    built = backend_class(manifest.backend).build(folder, manifest, options.device)
    if built is None:
        return []
    return [VerifyCheck("engine", VerifyResult.PASS if built.ok else VerifyResult.FAIL, built.message, built.facts)]


def _golden_checks(folder: Path, golden: Golden, detector: Detector) -> list[VerifyCheck]:
    """Run every golden input and compare what comes out, all inputs taken together."""
    pairs = [(item, run(detector, read_image(folder / item.image))) for item in golden.images]
    errors = [_errors(folder, item, outcome, detector) for item, outcome in pairs]
    agreements = [
        compare_detections(from_rows(i.detections), o.detections, golden.tolerances, detector.task) for i, o in pairs
    ]
    same_input = [item.input_sha256 == outcome.input_sha256 for item, outcome in pairs]
    per_image = [
        {"image": item.image, "differences": pooled([error]), "same_input": same, **asdict(agreement)}
        for (item, _), error, agreement, same in zip(pairs, errors, agreements, same_input)
    ]
    return [
        _outputs_check(pooled(errors), golden, all(same_input), per_image),
        _detections_check(agreements, golden),
    ]


def _errors(
    folder: Path, item: GoldenImage, outcome: GoldenOutcome, detector: Detector
) -> dict[str, tuple[float, float]]:
    stored = read_outputs(folder / item.outputs)
    # Held against the model's before they are decoded, which would fail with an error of numpy's.
    shapes = [output.shape for output in stored]
    if shapes != [output.shape for output in outcome.outputs]:
        raise BundleError(f"the golden outputs '{item.outputs}' have shapes {shapes}, not the model's; copy it again")
    backend = detector.backend
    expected = [np.array(output) for output in backend.decode(stored)]  # copies: decoding again may reuse memory
    parts = (
        detector.task.output_parts(tuple(o), backend.layout, detector.info)
        for o in (expected, backend.decode(outcome.outputs))
    )
    return output_errors(*parts)


def _outputs_check(
    differences: Mapping[str, float], golden: Golden, same_input: bool, per_image: list[dict[str, Any]]
) -> VerifyCheck:
    if not golden.images:
        return VerifyCheck("golden outputs", VerifyResult.INCONCLUSIVE, NOTHING, {"images": []})
    tolerances = golden.tolerances
    limits = {part: tolerances.boxes if part == "boxes" else tolerances.scores for part in differences}
    passed = all(value <= limits[part] for part, value in differences.items())
    parts = ", ".join(f"{part} {value:.4f} (limit {limits[part]:g})" for part, value in differences.items())
    message = f"raw outputs of {len(golden.images)} golden inputs differ by {parts} of their spread"
    if not same_input:
        message += "; the preprocessed images differ in single bits, as with another OpenCV"
    values = {"differences": dict(differences), "limits": limits, "same_input": same_input, "images": per_image}
    return VerifyCheck("golden outputs", VerifyResult.PASS if passed else VerifyResult.FAIL, message, values)


def _detections_check(agreements: Sequence[Agreement], golden: Golden) -> VerifyCheck:
    if not agreements:
        return VerifyCheck("golden detections", VerifyResult.INCONCLUSIVE, NOTHING, {"same": 0, "total": 0})
    same, total = sum(a.same for a in agreements), sum(a.total for a in agreements)
    share, limits = (same / total if total else 1.0), golden.tolerances
    message = f"{same} of {total} detections agree (limit {limits.agreement:.0%})"
    if not total:
        message = f"nothing is detected on {len(agreements)} golden inputs, there as here; their raw outputs decide"
    values = {"agreement": share, "same": same, "total": total, "limits": asdict(limits)}
    return VerifyCheck(
        "golden detections", VerifyResult.PASS if share >= limits.agreement else VerifyResult.FAIL, message, values
    )


def _accuracy_check(
    detector: Detector, manifest: BundleManifest, golden: Golden, options: VerifyOptions
) -> VerifyCheck:
    """Measure accuracy here, and hold it against the export machine's on the same images."""
    accuracy = measure(detector, options.data, limit=options.limit)
    data = fingerprint(options.data, manifest.info, options.limit)
    values = {**asdict(accuracy), "labels": data.labels, "data_sha256": data.sha256}
    measured = f"{detector.task.named(accuracy.metrics)} on {accuracy.images} images"
    expected = manifest.accuracy
    if expected is None:
        return VerifyCheck(
            "accuracy", VerifyResult.INCONCLUSIVE, f"{measured}; the export machine measured none", values
        )
    limit = golden.tolerances.map_drop
    # The worst of them: a pose model may keep its boxes and lose its keypoints.
    drop = max(expected.metrics[name] - accuracy.metrics[name] for name in detector.task.main_metrics)
    values.update(expected=asdict(expected), drop=drop, limit=limit)
    # Of other images a difference says something about the data, and nothing about this machine.
    if expected.data_sha256 and expected.data_sha256 != data.sha256:
        message = (
            f"{measured}; the export machine's {detector.task.named(expected.metrics)} is of other images or labels"
        )
        return VerifyCheck("accuracy", VerifyResult.INCONCLUSIVE, message, values)
    there = detector.task.named(expected.metrics)
    message = f"{measured}, on the export machine {there}: a drop of {drop * 100:+.2f} points (limit {limit * 100:g})"
    return VerifyCheck("accuracy", VerifyResult.PASS if drop <= limit else VerifyResult.FAIL, message, values)


def _environment() -> dict[str, Any]:
    import cv2

    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
