"""What a model does at the deployed confidence, against counting by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from validation_fakes import FakeRunner, label_rows, write_dataset

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation import operating
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer, class_confidences
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.gate import load_gate
from yoloquant.evaluation.match_by import MatchBy
from yoloquant.evaluation.operating import F1_STEP, LOWEST
from yoloquant.evaluation.verdict import ArtifactInfo, VerdictOptions, reach_verdict
from yoloquant.runtime.core.letterbox import place
from yoloquant.types import Verdict

OPTIONS = BootstrapOptions(replicates=200)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ValidationSet:
    return ValidationSet.from_yaml(write_dataset(tmp_path_factory.mktemp("set"), count=12))


def rows(data: ValidationSet) -> list[np.ndarray]:
    """Every label found with a score of 0.42 to 0.9, and two false alarms an image of 0.1 to 0.6."""
    where, rng = place((48, 64), (64, 64)), np.random.default_rng(3)
    found = []
    for each in label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images]):
        each[:, 4] = rng.uniform(0.42, 0.9, len(each))
        wrong = [[1, 57 + 3 * k, 4, 59 + 3 * k, rng.uniform(0.1, 0.6), k] for k in range(2)]
        found.append(np.concatenate([each, wrong]))
    return found


def scaled(found: list[np.ndarray], factor: float) -> list[np.ndarray]:
    return [each * np.array([1, 1, 1, 1, factor, 1]) for each in found]


def run(data: ValidationSet, **found: list[np.ndarray]) -> Evaluation:
    return evaluate({n: FakeRunner(each) for n, each in found.items()}, data, EvaluateOptions(warmup=0))


def test_rates_are_those_that_one_counts(data: ValidationSet) -> None:
    found = rows(data)
    point = Comparer(run(data, fp32=found), OPTIONS, conf=0.5).operating("fp32")
    assert point is not None and point.precision and point.recall and point.f1 and point.false_alarms
    right = sum(int((each[:-2, 4] > 0.5).sum()) for each in found)
    wrong = sum(int((each[-2:, 4] > 0.5).sum()) for each in found)
    assert 0 < wrong < 24 and 0 < right < data.boxes
    assert point.precision.value == pytest.approx(right / (right + wrong))
    assert point.recall.value == pytest.approx(right / data.boxes)
    assert point.f1.value == pytest.approx(2 * right / (right + wrong + data.boxes))
    assert point.false_alarms.value == pytest.approx(wrong / 12)
    assert point.detections.value == pytest.approx((right + wrong) / 12)
    assert point.f1.low < point.f1.value < point.f1.high
    cats = [(each[:-2][:, 5] == 0, each[:-2, 4] > 0.5) for each in found]
    expected = sum(int((c & s).sum()) for c, s in cats) / sum(int(c.sum()) for c, _ in cats)
    assert point.recall_per_class["cat"] == pytest.approx(expected)
    assert set(point.f1_per_class) == {"cat", "dog", "bird"}


def test_shrunk_scores_are_seen_and_matched(data: ValidationSet) -> None:
    """Scores that shrink alike leave mAP as it is; the matched confidence shrinks with them and gives F1 back."""
    found = rows(data)
    evaluation, alarms = run(data, fp32=found, low=scaled(found, 0.6)), MatchBy.FALSE_ALARMS
    comparer = Comparer(evaluation, OPTIONS, conf=0.4, match=alarms)
    comparison = comparer.compare("low").comparison
    assert comparison.map_drop is not None and comparison.map_drop.value == pytest.approx(0, abs=1e-9)
    assert comparison.intervals["f1_drop"].low > 0.05
    matched = comparison.matched_conf
    assert matched is not None and matched.low <= 0.24 <= matched.high and abs(matched.value - 0.24) < 0.02
    base, again = comparer.operating("fp32"), comparer.operating("low", matched.value)
    assert base is not None and again is not None and base.f1 and again.f1 and base.false_alarms and again.false_alarms
    assert again.false_alarms.value == base.false_alarms.value
    assert again.f1.value == pytest.approx(base.f1.value, abs=0.03)
    same = Comparer(run(data, fp32=found, same=found), OPTIONS, conf=0.4, match=alarms).compare("same").comparison
    assert same.intervals["f1_drop"].low == same.intervals["f1_drop"].high == 0
    assert same.matched_conf is not None and abs(same.matched_conf.value - 0.4) < 0.05


def test_few_scores_are_matched_by_the_same_sums_as_many(data: ValidationSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores in steps, as an INT8 head gives them: many detections share one, and a matrix of all is small."""
    found, draw = [], np.random.default_rng(4)
    for each in rows(data):
        noise = np.repeat([[1.0, 57.0, 4.0, 59.0, 0.0, 1.0]], 60, axis=0)
        noise[:, 4] = draw.uniform(0.02, 0.6, 60)
        each = np.concatenate([each, noise])
        each[:, 4] = np.round(each[:, 4] * 16) / 16
        found.append(each)
    evaluation = run(data, fp32=rows(data), few=found)
    kinds: list[bool] = []

    def matched() -> object:
        added = operating._added
        with monkeypatch.context() as patch:
            patch.setattr(operating, "_added", lambda *a: kinds.append(isinstance(m := added(*a), np.ndarray)) or m)
            return Comparer(evaluation, OPTIONS, match=MatchBy.F1).matched_conf("few")

    dense = matched()
    monkeypatch.setattr(operating, "DENSE", 0)
    assert dense == matched() and dense is not None
    assert kinds == [True, True, False, False]


def test_f1_is_matched_where_that_is_asked(data: ValidationSet) -> None:
    found = rows(data)
    comparer = Comparer(run(data, fp32=found, low=scaled(found, 0.6)), OPTIONS, conf=0.5, match=MatchBy.F1)
    matched = comparer.matched_conf("low")
    assert matched is not None and matched.low <= 0.3 <= matched.high and abs(matched.value - 0.3) < 0.05
    base, again = comparer.operating("fp32"), comparer.operating("low", matched.value)
    assert base is not None and again is not None and base.f1 and again.f1
    assert abs(base.f1.value - again.f1.value) < 0.005
    assert comparer.operating("low", 0.5).f1.value < base.f1.value - 0.05  # type: ignore[union-attr]


def test_a_threshold_stays_where_nothing_is_lost_at_it(data: ValidationSet) -> None:
    """By default F1 is matched, but neither a gain nor less than a hundred images tell moves what is deployed."""
    found = rows(data)
    better = [each[:-2] for each in found]  # the same without false alarms
    comparer = Comparer(run(data, fp32=found, same=found, better=better), OPTIONS, conf=0.5)
    for name in ("same", "better"):
        matched = comparer.matched_conf(name)
        assert matched is not None and (matched.value, matched.std) == (0.5, 0)


def test_no_threshold_lies_between_detections_of_one_score(data: ValidationSet) -> None:
    """INT8 gives many detections one score: a place between them, where F1 would be reached, cannot be deployed."""
    found = rows(data)
    grid = scaled(found, 0.6)
    for each in grid:
        each[:, 4] = np.round(each[:, 4] * 16) / 16
    comparer = Comparer(run(data, fp32=found, low=grid), OPTIONS, conf=0.5)
    base, matched = comparer.operating("fp32"), comparer.matched_conf("low")
    assert base is not None and base.f1 is not None and matched is not None
    # What F1 is at every threshold that can be deployed.
    places = [comparer.operating("low", k / 16 + 1 / 32) for k in range(1, 16)]
    least = min(abs(p.f1.value - base.f1.value) for p in places if p is not None and p.f1 is not None)
    again = comparer.operating("low", matched.value)
    assert again is not None and again.f1 is not None
    assert abs(again.f1.value - base.f1.value) <= least + F1_STEP


def test_without_labels_detections_are_matched(data: ValidationSet, tmp_path: Path) -> None:
    folder = data.images[0].path.parent
    bare = ValidationSet.from_folder(folder, data.names)
    found = rows(data)
    comparer = Comparer(run(bare, fp32=found, low=scaled(found, 0.6)), OPTIONS, conf=0.4)
    comparison = comparer.compare("low").comparison
    assert "f1_drop" not in comparison.intervals
    assert comparison.matched_conf is not None and comparison.matched_conf.value == pytest.approx(0.24, abs=0.02)
    point = comparer.operating("low")
    assert point is not None and point.f1 is None and point.detections.value > 0


def test_nothing_to_match(data: ValidationSet) -> None:
    empty = [np.zeros((0, 6)) for _ in data.images]
    comparer = Comparer(run(data, fp32=rows(data), none=empty), OPTIONS)
    assert comparer.matched_conf("none") is None
    point = comparer.operating("none")
    assert point is not None and point.f1 is not None and point.f1.value == 0
    assert LOWEST < 0.05


def test_a_gate_can_limit_it(data: ValidationSet) -> None:
    found = rows(data)
    limits = {"f1_drop": {"limit": 0.02, "rule": "veto"}, "false_alarm_rise": {"limit": 0.2, "rule": "veto"}}
    gate = load_gate({"name": "g", "limits": limits, "min_images": 1, "baseline_map": 0})
    evaluation = run(data, fp32=found, low=scaled(found, 0.6), more=scaled(found, 1.6))
    facts = {name: ArtifactInfo() for name in ("low", "more")}
    low, more = reach_verdict(evaluation, gate, facts, VerdictOptions(bootstrap=OPTIONS, conf=0.4)).targets
    assert [(c.name, c.verdict) for c in low.checks] == [
        ("f1_drop", Verdict.FAIL),
        ("false_alarm_rise", Verdict.PASS),
    ]
    assert (
        more.checks[1].verdict is Verdict.FAIL and "false alarms at the deployed confidence" in more.checks[1].message
    )
    assert low.matched is not None and low.matched.conf < 0.4 < (more.matched.conf if more.matched else 0)


def test_classes_that_shrink_differently_have_confidences_of_their_own(data: ValidationSet) -> None:
    """The first class shrinks, the second does not; of the third FP32 gives no false alarm, so nothing is matched."""
    rng, found = np.random.default_rng(1), rows(data)
    wrong = [[[5 + 4 * k, 57, 8 + 4 * k, 59, rng.uniform(0.1, 0.6), k % 2] for k in range(12)] for _ in found]
    found = [np.concatenate([each, np.array(more)]) for each, more in zip(found, wrong, strict=True)]
    low = [
        each * np.stack([np.where((each[:, 5] == 0) & (i == 4), 0.5, 1) for i in range(6)], axis=1) for each in found
    ]
    evaluation = run(data, fp32=found, low=low)
    alarms = MatchBy.FALSE_ALARMS
    comparison = Comparer(evaluation, OPTIONS, conf=0.4, match=alarms).compare("low").comparison
    own = comparison.matched_conf_per_class
    assert set(own) == {"cat", "dog"}
    assert own["cat"] == pytest.approx(0.2, abs=0.02) and own["dog"] == pytest.approx(0.4, abs=0.02)
    lost = {name: comparison.intervals[f"{name}f1_drop"].value for name in ("matched_", "matched_per_class_")}
    assert abs(lost["matched_per_class_"]) < 0.01 < lost["matched_"]
    assert comparison.intervals["matched_per_class_false_alarm_rise"].value == pytest.approx(0, abs=0.05)
    assert class_confidences(data.names, 0.3, own) == [own["cat"], own["dog"], 0.3]
    few = Comparer(run(data, fp32=rows(data), low=rows(data)), OPTIONS, conf=0.4, match=alarms)  # at most 12 of a class
    assert few.matched_per_class("low") == {}
    gate = load_gate({"name": "g", "limits": {"matched_per_class_f1_drop": {"limit": 0.02, "rule": "veto"}}})
    (target,) = reach_verdict(evaluation, gate, {"low": ArtifactInfo()}, VerdictOptions(OPTIONS, conf=0.4)).targets
    assert "F1 drop at each class's matched confidence" in target.checks[-1].message
