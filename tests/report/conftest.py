"""A validation result with every kind of outcome, and names that try to break out of each format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from yoloquant.evaluation.results import (
    Accuracy,
    Comparison,
    Example,
    GateCheck,
    Interval,
    Latency,
    OperatingPoint,
    TargetResult,
    ValidationResult,
)
from yoloquant.types import Verdict

NASTY = (
    "<script>alert(1)</script>",
    "a|b",
    "]]>",
    "`code` **bold** @user",
    '" onload="alert(2)',
    "猫 $x_1$",
    "\x00\x07 ",
)
NAMES = ("person", "bicycle", "car", "dog", "traffic light", *NASTY, *(f"thing {i}" for i in range(20)))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A drawn photograph-sized image."""
    from PIL import Image, ImageDraw

    path = tmp_path / "street <b>&.jpg"
    picture = Image.linear_gradient("L").resize((960, 720)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((100, 200, 400, 600), fill=(200, 80, 60))
    draw.ellipse((500, 300, 850, 650), fill=(60, 120, 200))
    picture.save(path)
    return path


def make_target(name: str, verdict: Verdict, drop: float, *, ms: float = 20.0, size: int = 3_060_000) -> TargetResult:
    """One measured artifact whose mAP drop is ``drop``, with a check per common limit."""
    interval = Interval(drop, drop - 0.007, drop + 0.007, std=0.0035)
    fidelity = Interval(0.953 - drop, 0.945 - drop, 0.96 - drop)
    comparison = Comparison(
        map_drop=interval,
        map50_drop=replace(interval, value=drop / 2),
        fidelity=fidelity,
        fidelity_per_class=dict.fromkeys(NAMES, 0.9),
        fidelity_per_size={"small": 0.9, "medium": 0.95, "large": None},
        per_class_drop={c: drop * (i - 6) / 4 for i, c in enumerate(NAMES)},
        per_size_drop={"small": drop * 2, "medium": -drop, "large": None},
        confidence_shift=-drop,
        box_iou=0.962,
        matched=731,
        matched_conf=Interval(0.21, 0.18, 0.24),
        latency_ratio=ms / 28.7,
        size_ratio=size / 10_600_000,
    )
    message = f"drop straddles the limit; about 900 more images would settle it ({name})"
    checks = (
        GateCheck("map_drop", drop, 0.005, verdict, interval, "" if verdict is Verdict.PASS else message),
        GateCheck("fidelity", fidelity.value, 0.9, Verdict.PASS, fidelity),
        GateCheck("latency_ratio", ms / 28.7, 1.0, Verdict.PASS),
    )
    rate = Interval(0.7 - drop, 0.65 - drop, 0.75 - drop)
    operating = OperatingPoint(
        0.25, Interval(7.5, 7.0, 8.0), rate, rate, rate, Interval(2.1, 1.8, 2.4), {"person": 0.7}
    )
    return TargetResult(
        operating=operating,
        matched=replace(operating, conf=0.21),
        target=name,
        path=f"yolo11n.{name}",
        scheme="portable",
        verdict=verdict,
        accuracy=Accuracy(0.4479 - drop, 0.6066 - drop, dict.fromkeys(NAMES, 0.4), {"small": 0.2, "large": None}),
        comparison=comparison,
        latency=Latency(ms, ms * 1.2, 100, 2),
        size_bytes=size,
        peak_memory_bytes=310_000_000,
        checks=checks,
    )


@pytest.fixture
def result(image: Path) -> ValidationResult:
    """Four targets: passed, inconclusive, failed, and one that could not be built."""
    baseline = TargetResult(
        "fp32",
        "yolo11n.pt",
        "",
        Verdict.PASS,
        accuracy=Accuracy(0.4479, 0.6066, dict.fromkeys(NAMES, 0.4)),
        latency=Latency(28.7, 31.0, 100, 2),
        size_bytes=10_600_000,
    )
    fp32 = (
        (100.0, 200.0, 400.0, 600.0, 0.91, 0.0),
        (500.0, 300.0, 850.0, 650.0, 0.83, 5.0),
        (10.0, 10.0, 90.0, 90.0, 0.1, 1.0),
    )
    int8 = ((102.0, 198.0, 405.0, 601.0, 0.9, 0.0), (600.0, 40.0, 820.0, 180.0, 0.41, 6.0))
    broken = TargetResult(
        "tensorrt", "", "", Verdict.ERROR, error="needs 'tensorrt_rtx' <b>&\nsecond line ]]>", notes=("note | one",)
    )
    return ValidationResult(
        verdict=Verdict.ERROR,
        baseline=baseline,
        targets=(
            make_target("openvino", Verdict.PASS, -0.0021, ms=10.4, size=3_400_000),
            make_target("onnxruntime", Verdict.INCONCLUSIVE, 0.0035, ms=20.1),
            make_target("litert", Verdict.FAIL, 0.0213, ms=18.2),
            broken,
        ),
        names=NAMES,
        images=128,
        labels=929,
        imgsz=(640, 640),
        gate="default",
        environment={"python": "3.11", "threads": 2, "versions": {"onnx": "1.23 <&>"}, "ratio": 0.5},
        examples=(
            Example(str(image), "openvino", fp32, fp32),
            Example(str(image), "litert", fp32, int8),
            Example(str(image.with_name("gone.jpg")), "litert", fp32, int8),
        ),
        seconds=83.4,
    )


@pytest.fixture
def unlabelled(result: ValidationResult) -> ValidationResult:
    """The same run without labels: no mAP anywhere, only fidelity."""

    def strip(target: TargetResult) -> TargetResult:
        comparison = target.comparison and replace(
            target.comparison, map_drop=None, map50_drop=None, per_class_drop={}, per_size_drop={}
        )
        checks = tuple(check for check in target.checks if check.name != "map_drop")
        return replace(target, accuracy=None, comparison=comparison, checks=checks)

    return replace(result, baseline=strip(result.baseline), targets=tuple(map(strip, result.targets)), labels=0)
