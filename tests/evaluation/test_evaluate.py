"""One pass over the images: shared pixels, shared selection, failures contained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from validation_fakes import NAMES, FakeRunner, label_rows, write_dataset

from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import DataError, TargetError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.gate import exit_code, load_gate
from yoloquant.evaluation.results import Interval, Latency
from yoloquant.evaluation.verdict import ArtifactInfo, VerdictOptions, reach_verdict
from yoloquant.runtime.core.class_order import class_labels, class_order
from yoloquant.runtime.core.letterbox import place
from yoloquant.types import HeadLayout, Verdict

GATE = {
    "name": "test",
    "limits": {"fidelity": 0.9, "map_drop": 0.05, "confidence_shift": 0.2},
    "min_images": 12,  # the tests' own set
}
QUICK = VerdictOptions(bootstrap=BootstrapOptions(replicates=200))


@pytest.fixture
def data(tmp_path: Path) -> ValidationSet:
    return ValidationSet.from_yaml(write_dataset(tmp_path / "set", count=12))


def perfect(data: ValidationSet, score: float = 0.9) -> list[np.ndarray]:
    """Detections on every label of a 48 x 64 data set at 64 x 64."""
    where = place((48, 64), (64, 64))
    return label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images], score=score)


def shifted(rows: Sequence[np.ndarray], pixels: float) -> list[np.ndarray]:
    """The same detections moved to the right."""
    return [r + np.array([pixels, 0, pixels, 0, 0, 0]) for r in rows]


def run(data: ValidationSet, **runners: FakeRunner):  # type: ignore[no-untyped-def]
    return evaluate(runners, data, EvaluateOptions(warmup=0))


def test_who_prepares_elsewhere_gets_the_picture_as_it_was_read(data: ValidationSet) -> None:
    class Elsewhere(FakeRunner):
        def infer_picture(self, picture: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, ...]:
            return self.infer(picture)

    rows = perfect(data)
    runners = {"fp32": FakeRunner(rows), "there": Elsewhere(rows)}
    assert run(data, **runners).records["there"].detections
    for index, picture in enumerate(runners["there"].inputs):
        np.testing.assert_array_equal(picture, data.read(index))
    assert runners["fp32"].inputs[0].shape == (1, 3, 64, 64)


@pytest.mark.parametrize("layout", [HeadLayout.DECODED, HeadLayout.END2END])
def test_perfect_model_reaches_the_ceiling(data: ValidationSet, layout: HeadLayout) -> None:
    rows = perfect(data)
    evaluation = run(data, fp32=FakeRunner(rows, layout=layout), same=FakeRunner(rows, layout=layout))
    result = reach_verdict(evaluation, load_gate(GATE), {"same": ArtifactInfo("a.onnx")}, QUICK)
    accuracy, target = result.baseline.accuracy, result.targets[0]
    assert accuracy is not None and accuracy.map50_95 == pytest.approx(0.995) == accuracy.map50
    assert set(accuracy.per_class) == set(NAMES)
    comparison = target.comparison
    assert comparison is not None and comparison.map_drop is not None
    assert (comparison.map_drop.value, comparison.map_drop.low, comparison.map_drop.high) == (0, 0, 0)
    assert comparison.fidelity.value == pytest.approx(0.995) and comparison.box_iou == pytest.approx(1)
    assert comparison.confidence_shift == 0 and comparison.matched == data.boxes
    assert result.verdict is Verdict.PASS and exit_code(result) == 0
    assert (result.images, result.labels, result.imgsz) == (12, data.boxes, (64, 64))


def test_every_runner_sees_the_same_pixels_once(data: ValidationSet) -> None:
    first, second = FakeRunner(perfect(data)), FakeRunner(perfect(data))
    seen: list[tuple[int, int, str]] = []
    evaluate({"fp32": first, "b": second}, data, EvaluateOptions(warmup=0), progress=lambda *a: seen.append(a))
    assert first.calls == second.calls == len(data)
    assert all(a is b for a, b in zip(first.inputs, second.inputs, strict=True))
    assert seen[0] == (1, 12, "000.png") and seen[-1] == (12, 12, "011.png")


def test_a_known_bad_artifact_fails(data: ValidationSet) -> None:
    rows = perfect(data)
    evaluation = run(data, fp32=FakeRunner(rows), bad=FakeRunner(shifted(rows, 4)))
    result = reach_verdict(evaluation, load_gate(GATE), {"bad": ArtifactInfo()}, QUICK)
    checks = {check.name: check for check in result.targets[0].checks}
    assert checks["map_drop"].verdict is Verdict.FAIL and checks["map_drop"].value > 0.2
    assert checks["fidelity"].verdict is Verdict.FAIL
    assert result.verdict is Verdict.FAIL and exit_code(result) == 1
    example = result.examples[0]
    assert example.target == "bad" and len(example.fp32) == len(example.quantized) > 0
    assert np.array(example.quantized)[0, 0] - np.array(example.fp32)[0, 0] == pytest.approx(4, abs=0.02)


def test_confidence_shift_and_per_size(data: ValidationSet) -> None:
    evaluation = run(data, fp32=FakeRunner(perfect(data)), low=FakeRunner(perfect(data, score=0.6)))
    comparison = Comparer(evaluation, BootstrapOptions(replicates=50)).compare("low").comparison
    assert comparison.confidence_shift == pytest.approx(-0.3, abs=1e-6)
    assert comparison.fidelity.value == pytest.approx(0.995)
    assert comparison.fidelity_per_size == {"small": pytest.approx(0.995), "medium": None, "large": None}
    assert comparison.per_size_drop == {"small": 0, "medium": None, "large": None}


def test_a_failing_runner_is_an_error_and_the_others_go_on(data: ValidationSet) -> None:
    def raise_later(index: int, output: np.ndarray) -> np.ndarray:
        if index == 5:
            raise RuntimeError("device lost")
        return output

    def go_nan(index: int, output: np.ndarray) -> np.ndarray:
        return np.full_like(output, np.nan)

    rows = perfect(data)
    runners = {
        "fp32": FakeRunner(rows),
        "lost": FakeRunner(rows, broken=raise_later),
        "nan": FakeRunner(rows, broken=go_nan),
        "shape": FakeRunner(rows, broken=lambda index, output: output[:, :5]),
        "size": FakeRunner(rows, imgsz=(32, 32)),
        "good": FakeRunner(rows),
    }
    evaluation = evaluate(runners, data, EvaluateOptions(warmup=0))
    assert set(evaluation.records) == {"fp32", "good"}
    wanted = {name: ArtifactInfo() for name in runners} | {"unbuilt": ArtifactInfo(error="no compiler")}
    wanted |= {"forgotten": ArtifactInfo()}
    result = reach_verdict(evaluation, load_gate(GATE), wanted, QUICK)
    errors = {target.target: target.error for target in result.targets if target.verdict is Verdict.ERROR}
    assert "RuntimeError: device lost (on image 005.png)" in errors["lost"]
    assert "NaN" in errors["nan"] and "(1, 7, anchors)" in errors["shape"] and "(32, 32)" in errors["size"]
    assert errors["unbuilt"] == "no compiler" and "not measured" in errors["forgotten"]
    assert [t.target for t in result.targets] == ["lost", "nan", "shape", "size", "good", "unbuilt", "forgotten"]
    assert next(t for t in result.targets if t.target == "good").verdict is Verdict.PASS
    assert result.verdict is Verdict.ERROR and exit_code(result) == 4


def test_a_failing_baseline_stops_everything(data: ValidationSet) -> None:
    bad = FakeRunner(perfect(data), broken=lambda index, output: np.full_like(output, np.inf))
    with pytest.raises(TargetError, match="baseline 'fp32' failed"):
        run(data, fp32=bad)
    with pytest.raises(TargetError, match="no runner is named 'fp32'"):
        run(data, other=FakeRunner(perfect(data)))


def test_classes_in_another_order_are_mapped_by_name(tmp_path: Path, data: ValidationSet) -> None:
    yaml = write_dataset(tmp_path / "other", count=12)
    yaml.write_text(yaml.read_text().replace("cat, dog, bird", "Bird, cat, dog"))
    for label in (tmp_path / "other" / "labels" / "val").iterdir():
        rows = [line.split() for line in label.read_text().splitlines()]
        label.write_text("\n".join(" ".join([str((int(r[0]) + 1) % 3), *r[1:]]) for r in rows))
    other = ValidationSet.from_yaml(yaml)
    rows = perfect(data)
    evaluation = run(other, fp32=FakeRunner(rows), same=FakeRunner(rows))
    result = reach_verdict(evaluation, load_gate(GATE), {"same": ArtifactInfo()}, QUICK)
    assert result.baseline.accuracy is not None
    assert result.baseline.accuracy.map50_95 == pytest.approx(0.995)
    assert set(result.baseline.accuracy.per_class) == set(NAMES)
    assert "lists the classes in another order than the model; 3 were mapped by name" in result.notes[0]
    for names in (("bird", "cat", "cow"), ("cat", "cat", "dog")):
        with pytest.raises(DataError, match=r"has other classes than the model: class \d is"):
            run(replace(other, names=names), fp32=FakeRunner(rows))


def test_a_baseline_that_scores_nothing_is_inconclusive(data: ValidationSet) -> None:
    wrong = [np.concatenate([r[:, :5], (r[:, 5:] + 1) % 3], axis=1) for r in perfect(data)]  # labels shifted by one
    evaluation = run(data, fp32=FakeRunner(wrong), same=FakeRunner(wrong))
    gate = load_gate({**GATE, "min_detections": 5})
    result = reach_verdict(evaluation, gate, {"same": ArtifactInfo()}, QUICK)
    assert result.verdict is Verdict.INCONCLUSIVE and exit_code(result) == 3
    assert "the FP32 model itself scores 0.0 points" in result.targets[0].checks[0].message


def test_copies_of_one_image_count_once(data: ValidationSet) -> None:
    copies = replace(data, images=data.images[:1] * len(data))
    evaluation = run(copies, fp32=FakeRunner(perfect(copies)), same=FakeRunner(perfect(copies)))
    measured = Comparer(evaluation, BootstrapOptions(replicates=20)).compare("same")
    assert measured.images == 1 and measured.intervals["fidelity"].low == measured.intervals["fidelity"].high


def test_two_classes_of_one_name_stay_two() -> None:
    assert class_labels(("a", "b", "a")) == ("a [0]", "b", "a [2]")
    assert class_order(("a", "b", "a"), ("a", "b", "a"), "x") is None
    with pytest.raises(DataError, match="several are called 'a'"):
        class_order(("a", "b", "a"), ("a", "a", "b"), "x")


def test_classes_must_fit(data: ValidationSet) -> None:
    two = ValidationSet(data.images, ("a", "b"), "two.yaml")
    with pytest.raises(DataError, match=r"model has 3 classes and data 'two\.yaml' has 2"):
        run(two, fp32=FakeRunner(perfect(data)))
    with pytest.raises(DataError, match="no images"):
        run(data.take(0), fp32=FakeRunner(perfect(data)))


def test_without_labels_fidelity_decides(data: ValidationSet) -> None:
    folder = ValidationSet.from_folder(data.images[0].path.parent, NAMES)
    rows = perfect(data)
    evaluation = run(folder, fp32=FakeRunner(rows), good=FakeRunner(rows), bad=FakeRunner(shifted(rows, 4)))
    wanted = {"good": ArtifactInfo(), "bad": ArtifactInfo()}
    result = reach_verdict(evaluation, load_gate({**GATE, "without_labels": "skip"}), wanted, QUICK)
    good, bad = result.targets
    assert result.labels == 0 and good.accuracy is None and good.comparison.map_drop is None
    assert good.verdict is Verdict.PASS and bad.verdict is Verdict.FAIL
    assert any("map_drop was not checked" in note for note in good.notes)
    strict = reach_verdict(evaluation, load_gate(GATE), {"good": ArtifactInfo()}, QUICK)
    assert strict.verdict is Verdict.INCONCLUSIVE and exit_code(strict) == 3 and exit_code(strict, 0) == 0


def test_a_model_that_finds_nothing(data: ValidationSet) -> None:
    nothing = [np.zeros((0, 6))] * len(data)
    evaluation = run(data, fp32=FakeRunner(perfect(data)), none=FakeRunner(nothing))
    target = reach_verdict(evaluation, load_gate(GATE), {"none": ArtifactInfo()}, QUICK).targets[0]
    assert target.verdict is Verdict.FAIL and target.comparison.fidelity.value == 0
    assert target.comparison.matched == 0 and "it detected nothing on any image" in target.notes


def test_a_baseline_that_finds_nothing_proves_nothing(data: ValidationSet) -> None:
    nothing = [np.zeros((0, 6))] * len(data)
    folder = ValidationSet.from_folder(data.images[0].path.parent, NAMES)
    evaluation = run(folder, fp32=FakeRunner(nothing), same=FakeRunner(nothing))
    gate = load_gate({"name": "g", "limits": {"fidelity": 0.9}})
    result = reach_verdict(evaluation, gate, {"same": ArtifactInfo()}, QUICK)
    assert result.verdict is not Verdict.PASS


def test_what_is_known_besides_goes_into_the_result(data: ValidationSet) -> None:
    rows = perfect(data)
    evaluation = run(data, fp32=FakeRunner(rows), int8=FakeRunner(rows))
    facts = {
        "int8": ArtifactInfo(
            size_bytes=50, latency=Latency(2.0, 3.0, 80, 1), latency_ratio=Interval(0.5, 0.4, 0.7), sha256="b" * 64
        ),
        "fp32": ArtifactInfo(size_bytes=200, sha256="a" * 64),
    }
    gate = load_gate({**GATE, "limits": {"latency_ratio": 0.6}})
    result = reach_verdict(evaluation, gate, facts, replace(QUICK, notes=("said",)))
    target = result.targets[0]
    assert target.comparison.latency_ratio == 0.5 and target.comparison.size_ratio == 0.25
    assert target.latency == Latency(2.0, 3.0, 80, 1) and result.notes == ("said",)
    assert (result.baseline.sha256, target.sha256) == ("a" * 64, "b" * 64)
    assert target.verdict is Verdict.INCONCLUSIVE, "a ratio that scatters across its limit decides nothing"
    assert "(spread 0.4000 to 0.7000); it scatters across the limit" in target.checks[0].message
    assert result.environment["peak_memory_bytes"] > 2**20 and result.environment["data_sha256"] == data.data_hash
    assert len(result.targets) == 1 and result.baseline.size_bytes == 200
    off = {"int8": ArtifactInfo(simulated=True, latency_note="not measured here: it is for jetson")}
    other = reach_verdict(evaluation, gate, off, QUICK).targets[0]
    assert other.latency is None and other.comparison.latency_ratio is None and "simulated" in other.notes[0]
    assert "not measured here: it is for jetson" in other.checks[0].message


def test_results_are_repeatable(data: ValidationSet) -> None:
    rows = perfect(data)
    rng = np.random.default_rng(0)
    noisy = [r + np.concatenate([rng.normal(0, 1.5, (len(r), 4)), np.zeros((len(r), 2))], axis=1) for r in rows]
    evaluation = run(data, fp32=FakeRunner(rows), noisy=FakeRunner(noisy))
    first = reach_verdict(evaluation, load_gate(GATE), {"noisy": ArtifactInfo()}, QUICK).targets[0]
    again = reach_verdict(evaluation, load_gate(GATE), {"noisy": ArtifactInfo()}, QUICK).targets[0]
    assert first.comparison == again.comparison and first.checks == again.checks
    drop = first.comparison.map_drop
    assert drop.low < drop.value < drop.high and drop.std > 0
