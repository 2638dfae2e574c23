"""The audit passes images that stand for the data, and names what is wrong with others."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from yoloquant.errors import CalibrationError
from yoloquant.quantization.calibration_audit import (
    Fingerprint,
    ImageStatistics,
    audit,
)

NAMES = tuple("abcdefgh")


def images(count: int, *, seed: int = 0, mean: float = 1.0, spread: float = 0.2, classes: int = 8, score: float = 0.8,
           tail: float = 0.1) -> ImageStatistics:  # fmt: skip
    """Made-up images at 20 tensors; ``tail`` is how much the maximum varies from image to image."""
    rng = np.random.default_rng(seed)
    result = ImageStatistics(tuple(f"t{i}" for i in range(20)))
    for i in range(count):
        deviation = mean * np.exp(rng.normal(0, spread, 20))
        high = deviation * 4 * np.exp(rng.normal(0, tail, 20))
        best = np.full(8, 0.05)
        best[i % classes] = score
        moments = {
            name: (-0.3, float(high[j]), float(deviation[j] / 3), float(deviation[j]))
            for j, name in enumerate(result.points)
        }
        result.add(moments, best)
    return result


def test_a_good_set_passes() -> None:
    found = audit(images(128), NAMES, images(16, seed=1))
    assert found.warnings == ()
    assert (found.images, found.classes, found.all_classes, found.seeing) == (128, 8, 8, 1.0)
    assert found.distance is not None and 0.8 < found.distance < 1.2
    assert found.settled_at == 128


def test_few_images_are_called_few_and_how_many_would_do() -> None:
    found = audit(images(8, tail=0.6, spread=0.4), NAMES)
    assert any("8 calibration images are few" in w for w in found.warnings)
    assert found.settled_at is None or found.settled_at > 8
    more = audit(images(512, tail=0.6, spread=0.4), NAMES)
    assert more.growth < found.growth


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (images(64, score=0.1), "look foreign"),
        (images(64, classes=1), "1 of its 8 classes"),
        (images(64, spread=0.0, tail=0.0), "all alike"),
    ],
)
def test_what_is_wrong_is_named(seen: ImageStatistics, said: str) -> None:
    found = audit(seen, NAMES)
    assert any(said in w for w in found.warnings)


def test_scored_images_of_another_kind_are_far() -> None:
    found = audit(images(64), NAMES, images(16, seed=3, mean=2.5))
    assert found.distance is not None and found.distance > 2
    assert any("scored images" in w for w in found.warnings)


def test_a_model_without_class_scores_is_not_asked_for_them() -> None:
    seen = images(32)
    seen.classes = [np.zeros(0)] * 32
    found = audit(seen, NAMES)
    assert found.seeing is None and found.classes is None


def test_the_fingerprint_survives_and_finds_its_own_images() -> None:
    seen = images(64)
    found = audit(seen, NAMES)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))["fingerprint"]
    again = Fingerprint(tuple(data["points"]), tuple(data["center"]), tuple(data["spread"]))
    assert again == found.fingerprint and again.sha256 == data["sha256"]
    assert again.distance(images(16, seed=5)) < 1.3 < again.distance(images(16, seed=5, mean=3.0))
    assert Fingerprint.of(images(64, seed=9)).sha256 != again.sha256
    with pytest.raises(CalibrationError, match="other tensors"):
        again.distance(ImageStatistics(("elsewhere",)))


def test_too_few_to_judge() -> None:
    with pytest.raises(CalibrationError, match="at least 2"):
        audit(images(1), NAMES)


def test_quantize_audits_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import cv2
    from core_models import checkpoint

    from yoloquant.quantization.ptq import quantize
    from yoloquant.quantization.scheme import PORTABLE

    for i in range(8):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((48, 64, 3), np.uint8) + (i == 0))
    with caplog.at_level(logging.WARNING):
        artifact = quantize(checkpoint(tmp_path / "m.pt"), data=tmp_path, schemes=[PORTABLE])
    found = artifact.provenance["calibration_audit"]
    assert found["images"] == 8 and any("alike" in w for w in found["warnings"]) and "alike" in caplog.text
    assert json.loads(json.dumps(found))["fingerprint"]["points"]
    exported = artifact.metadata()["calibration_audit"]
    assert exported["fingerprint"] == found["fingerprint"]["sha256"], "devices get the hash alone"
