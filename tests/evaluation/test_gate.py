"""Gates: reading, limits, rules and verdicts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloquant.errors import UsageError
from yoloquant.evaluation.compare import Measurements
from yoloquant.evaluation.gate import (
    GATES_FOLDER,
    Limit,
    LimitRule,
    check_gates,
    check_task,
    decide,
    exit_code,
    images_to_settle,
    load_gate,
    load_gates,
    overall_verdict,
)
from yoloquant.evaluation.results import Comparison, Interval, TargetResult, ValidationResult
from yoloquant.types import Task, Verdict


def measured(drop: Interval | None, fidelity: Interval, **rest: float) -> Measurements:
    intervals = {"fidelity": fidelity, "confidence_shift": Interval(-0.02, -0.03, -0.01)}
    if drop is not None:
        intervals["map_drop"] = drop
    classes = {"cat": Interval(0.02, -0.01, 0.05), "dog": Interval(0.5, -0.5, 1.0)}
    comparison = Comparison(drop, None, fidelity, **rest)
    return Measurements(comparison, intervals, classes if drop else {}, {"cat": 50, "dog": 2}, 100)


GOOD = Interval(0.0, -0.004, 0.004)
SURE = Interval(0.95, 0.93, 0.97)


@pytest.mark.parametrize(
    ("low", "high", "rule", "verdict"),
    [
        (-0.01, 0.005, LimitRule.PROVE, Verdict.PASS),
        (-0.01, 0.02, LimitRule.PROVE, Verdict.INCONCLUSIVE),
        (0.015, 0.02, LimitRule.PROVE, Verdict.FAIL),
        (-0.01, 0.02, LimitRule.VETO, Verdict.PASS),
        (0.015, 0.02, LimitRule.VETO, Verdict.FAIL),
        (-0.01, 0.02, LimitRule.LIKELY, Verdict.PASS),
        (0.0088, 0.0332, LimitRule.LIKELY, Verdict.INCONCLUSIVE),
        (0.015, 0.02, LimitRule.LIKELY, Verdict.FAIL),
        (-0.01, 0.005, LimitRule.ESTIMATE, Verdict.PASS),
        (0.0, 0.03, LimitRule.ESTIMATE, Verdict.FAIL),
    ],
)
def test_rules(low: float, high: float, rule: LimitRule, verdict: Verdict) -> None:
    middle = (low + high) / 2
    limit = Limit(limit=0.01, rule=rule)
    assert decide(middle, Interval(middle, low, high), limit) is verdict
    # A lower bound is the mirror image.
    mirrored = Limit(limit=-0.01, rule=rule)
    assert decide(-middle, Interval(-middle, -high, -low), mirrored, sign=-1) is verdict


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.sampled_from(list(LimitRule)))
def test_a_narrower_interval_never_loses_a_verdict(value: float, half: float, limit: float, rule: LimitRule) -> None:
    wide = decide(value, Interval(value, value - half, value + half), Limit(limit=limit, rule=rule))
    point = decide(value, Interval(value, value, value), Limit(limit=limit, rule=rule))
    assert point is not Verdict.INCONCLUSIVE
    if rule is LimitRule.PROVE and wide is not Verdict.INCONCLUSIVE:
        assert wide is point


def test_images_to_settle_follows_the_square_root() -> None:
    # Half-width 0.02 on 100 images, 0.01 away from the limit: four times the images.
    assert images_to_settle(0.0, Interval(0, -0.02, 0.02), 0.01, 100) == 300
    assert images_to_settle(0.02, Interval(0.02, 0.0, 0.1), 0.01, 100) == 300
    assert images_to_settle(0.01, Interval(0.01, 0, 0.02), 0.01, 100) is None


def test_overrides_numbers_and_null() -> None:
    gate = load_gate(
        {
            "name": "g",
            "limits": {"map_drop": 0.01, "fidelity": {"limit": 0.9, "rule": "veto"}, "size_ratio": 0.5},
            "targets": {"litert": {"map_drop": 0.02, "size_ratio": None}},
        }
    )
    assert gate.limits_for("openvino")["map_drop"] == Limit(limit=0.01)
    special = gate.limits_for("litert")
    assert (
        special["map_drop"].limit == 0.02 and special["fidelity"].rule is LimitRule.VETO and "size_ratio" not in special
    )


def test_unmeasured_limits_are_never_silent() -> None:
    content = {"name": "g", "limits": {"fidelity": 0.9, "latency_ratio": 1.0, "map_drop": 0.01}}
    checks, notes = load_gate(content).check("x", measured(None, SURE))
    assert {c.name: c.verdict for c in checks} == {
        "map_drop": Verdict.INCONCLUSIVE,
        "fidelity": Verdict.PASS,
        "latency_ratio": Verdict.INCONCLUSIVE,
    }
    assert not notes
    checks, notes = load_gate({**content, "without_labels": "skip", "unmeasured": "skip"}).check(
        "x", measured(None, SURE)
    )
    assert [c.name for c in checks] == ["fidelity"] and len(notes) == 2
    empty = load_gate({"name": "g", "limits": {"map_drop": 0.01}, "without_labels": "skip"})
    checks, _ = empty.check("x", measured(None, SURE))
    assert [c.verdict for c in checks] == [Verdict.INCONCLUSIVE] and "no limit" in checks[0].message


def test_checks_and_messages() -> None:
    content = {
        "name": "g",
        "limits": {
            "map_drop": 0.002,
            "fidelity": 0.9,
            "per_class_drop": 0.1,
            "confidence_shift": 0.05,
            "size_ratio": 0.3,
        },
    }
    checks, _ = load_gate(content).check("x", measured(GOOD, SURE, size_ratio=0.5))
    by_name = {c.name: c for c in checks}
    assert (
        by_name["map_drop"].verdict is Verdict.INCONCLUSIVE and "about 300 more images" in by_name["map_drop"].message
    )
    assert by_name["per_class_drop"].verdict is Verdict.PASS and "(cat)" in by_name["per_class_drop"].message
    assert by_name["confidence_shift"].value == pytest.approx(0.02)  # of the absolute value
    assert by_name["confidence_shift"].interval == Interval(0.02, 0.01, 0.03)
    assert by_name["size_ratio"].verdict is Verdict.FAIL and by_name["size_ratio"].interval is None
    assert by_name["fidelity"].message.startswith("fidelity to FP32 is 0.9500, allowed is at least 0.9")


def test_the_worst_class_of_an_unlabelled_set_has_a_limit() -> None:
    """Two classes of fifty swapped: the mean passes, and without labels nothing else would say so."""
    classes = {"cat": Interval(0.02, 0.0, 0.05), "dog": Interval(0.96, 0.9, 0.99), "rare": Interval(0.0, 0.0, 0.0)}
    counts = {"cat": 30, "dog": 500, "rare": 3}
    known = replace(measured(None, SURE), class_fidelity=classes, class_references=counts)
    checks, _ = load_gate("unlabelled").check("x", known)
    by_name = {c.name: c for c in checks}
    assert by_name["fidelity"].verdict is Verdict.PASS
    assert by_name["per_class_fidelity"].verdict is Verdict.FAIL and "(cat)" in by_name["per_class_fidelity"].message
    checks, notes = load_gate("unlabelled").check("x", replace(known, class_references={"cat": 5}))
    assert not {"per_class_fidelity"} & {c.name for c in checks} and any("too few objects" in note for note in notes)


def test_devices_stand_for_their_targets() -> None:
    gate = load_gate({"name": "g", "limits": {"fidelity": 0.9}, "targets": {"jetson": {"fidelity": 0.95}}})
    assert gate.limits_for("tensorrt")["fidelity"].limit == 0.95 and gate.limits_for("litert")["fidelity"].limit == 0.9


def test_a_precision_can_have_limits_of_its_own() -> None:
    """Lifting a limit for float files once lifted it for the INT8 ones too."""
    lifted = {"openvino:fp16": {"fidelity": None}, "onnx:int8": {"fidelity": 0.8}, "litert": {"fidelity": 0.7}}
    gate = load_gate({"name": "g", "limits": {"fidelity": 0.9}, "targets": lifted})
    assert not gate.limits_for("openvino:fp16")
    found = {name: gate.limits_for(name)["fidelity"].limit for name in ("openvino", "onnxruntime", "onnxruntime:fp32")}
    assert found == {"openvino": 0.9, "onnxruntime": 0.8, "onnxruntime:fp32": 0.9}
    assert gate.limits_for("litert")["fidelity"].limit == 0.7 == gate.limits_for("litert:fp16")["fidelity"].limit


WIDE = Interval(0.02, -0.01, 0.05)
BAD = Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({"images": 1}, "min_images", r"1 different images prove nothing and fail nothing; at least 30 are needed"),
        ({"replicates": 1}, "min_replicates", r"1 replicates make no interval; bootstrap=100"),
        ({"baseline_map": 0.0047}, "baseline_map", r"the FP32 model itself scores 0\.5 points.*of 5 that are needed"),
        ({"class_boxes": {"cat": 3}}, "min_boxes", r"3 labelled objects prove nothing and fail nothing; at least 10"),
        ({"references": 0}, "min_detections", r"the FP32 model itself finds 0 objects.*of 10 that are needed"),
    ],
)
@pytest.mark.parametrize("artifact", [GOOD, BAD])
def test_worthless_measurements_decide_nothing(
    change: dict[str, float], name: str, message: str, artifact: Interval
) -> None:
    fidelity = Interval(1 - artifact.value, 1 - artifact.value, 1 - artifact.value)
    sound = replace(measured(artifact, fidelity), images=100, replicates=1000, baseline_map=0.4, references=500)
    known = replace(sound, **change)
    touched = "fidelity" if name == "min_detections" else "map_drop"
    checks, _ = load_gate({"name": "g", "limits": {touched: 0.9 if touched == "fidelity" else 0.1}}).check("x", known)
    assert overall_verdict(c.verdict for c in checks) is Verdict.INCONCLUSIVE
    by_name = {c.name: c for c in checks}
    assert re.search(message, by_name[name].message)
    assert by_name[touched].message.endswith(f"not decided ({name})")
    gate = load_gate({"name": "g", "limits": {touched: 0.9 if touched == "fidelity" else 0.1}})
    wanted = Verdict.FAIL if artifact is BAD else Verdict.PASS
    assert overall_verdict(c.verdict for c in gate.check("x", sound)[0]) is wanted


def test_a_gate_can_require_proof_and_says_how_many_images_that_takes() -> None:
    content = {"name": "g", "limits": {"map_drop": {"limit": 0.03, "rule": "veto"}}}
    (check,), _ = load_gate(content).check("x", measured(WIDE, SURE))
    assert check.verdict is Verdict.PASS and check.message.endswith("not proven: about 801 more images would prove it")
    (check,), _ = load_gate({**content, "require": "proof"}).check("x", measured(WIDE, SURE))
    assert check.verdict is Verdict.INCONCLUSIVE and "about 801 more images would settle it" in check.message
    assert "at most 0.03 (3 points)" in check.message


def test_noise_widens_an_interval() -> None:
    limit = {"limit": 0.005, "rule": "prove"}
    for noise, verdict in ((0.0, Verdict.PASS), (0.004, Verdict.INCONCLUSIVE)):
        gate = load_gate({"name": "g", "limits": {"map_drop": {**limit, "noise": noise}}})
        (check,), _ = gate.check("x", measured(GOOD, SURE))
        assert check.verdict is verdict
    assert check.interval is not None
    assert check.interval.high == pytest.approx(0.004 * 2**0.5) and check.interval.value == GOOD.value


def test_why_a_limit_was_not_measured() -> None:
    content = {"name": "g", "limits": {"fidelity": 0.9, "latency_ratio": 1.0}}
    off = replace(measured(None, SURE), reasons={"latency_ratio": "it was switched off (latency=false)"})
    checks, _ = load_gate(content).check("x", off)
    assert "was not measured: it was switched off (latency=false)" in checks[-1].message


def test_worst_and_exit_codes() -> None:
    assert overall_verdict([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert overall_verdict([Verdict.FAIL, Verdict.ERROR, Verdict.PASS]) is Verdict.ERROR
    assert overall_verdict([]) is Verdict.INCONCLUSIVE
    base = TargetResult("fp32", "", "", Verdict.PASS)
    for verdict, code in zip(Verdict, (0, 1, 3, 4), strict=True):
        assert exit_code(ValidationResult(verdict, base, (), (), 1, 1, (64, 64), "g")) == code


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"name": "g", "limits": {"map_dorp": 0.1}},
            r"unknown key 'limits.map_dorp' \(did you mean 'map_drop'\?\); allowed are map_drop, map50_drop",
        ),
        ({"name": "g", "limits": {}, "colour": 1}, r"unknown key 'colour'; allowed are format, name"),
        (
            {"name": "g", "limits": {"map_drop": {"limit": 0.1, "ruel": "veto"}}},
            r"map_drop.ruel'; allowed are limit, rule",
        ),
        (
            {"name": "g", "limits": {}, "targets": {"litert": {"fiedlity": 1}}},
            r"targets.litert.fiedlity' \(did you mean 'fidelity'\?\); allowed are map_drop",
        ),
        ({"name": "g", "limits": {"map_drop": {"limit": 0.1, "rule": "maybe"}}}, r"prove"),
        ({"name": "g", "limits": [1]}, r"limits must be limits by name"),
        ({"name": "g", "limits": {}, "targets": {"litret": {}}}, r"'litret' is unknown \(did you mean 'litert'\?\)"),
        ({"name": "g", "limits": {}, "targets": {"onnx": {}, "onnxruntime": {}}}, r"'onnxruntime' is given twice"),
        ({"name": "g", "limits": {}, "targets": {"coral:uint8": {}}}, r"not by 'uint8'; write edgetpu"),
        ({"name": "g", "limits": {"map_drop": 2}}, r"2 would be 200 points.*did you mean 0\.02\?"),
        ({"name": "g", "limits": {"map_drop": 0.5}}, r"would be 50 points.*did you mean 0\.005\?"),
        ({"name": "g", "limits": {"fidelity": 92}}, r"92 is out of range.*between 0\.5 and 1; did you mean 0\.92\?"),
        ({"name": "g", "limits": {"fidelity": -1}}, r"-1 is out of range.*between 0\.5 and 1$"),
        ({"name": "g", "limits": {"latency_ratio": 110}}, r"a ratio between 0\.01 and 20; did you mean 1\.1\?"),
        ({"name": "g", "limits": {}, "targets": {"jetson": {"map_drop": {"limit": 3}}}}, r"targets.jetson.map_drop: 3"),
        ({"name": "g", "limits": {}, "baseline_map": 5}, "baseline_map"),
        ({"name": "g", "limits": {"map_drop": True}}, "limits.map_drop"),
        ({"name": "g", "limits": {"map_drop": float("nan")}}, "finite"),
        ({"limits": {}}, "name: Field required"),
    ],
)
def test_bad_gates(content: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_gate(content)


def test_gate_files(tmp_path: Path) -> None:
    for path in GATES_FOLDER.glob("*.yaml"):
        gate = load_gate(path.stem)
        assert gate.name == path.stem
        decisive = "map_drop" if path.stem == "release" else "fidelity"  # a new model may well find other things
        assert gate.limits[decisive] is not None
    assert {p.stem for p in GATES_FOLDER.glob("*.yaml")} >= {"default", "release", "strict", "unlabelled"}
    with pytest.raises(UsageError, match=r"does not exist.*default, release, strict, unlabelled"):
        load_gate("nowhere")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    with pytest.raises(UsageError, match="cannot be read"):
        load_gate(bad)
    bad.write_text("text")
    with pytest.raises(UsageError, match="a gate holds the keys"):
        load_gate(bad)


def test_the_accuracy_gate_is_the_default_one_without_latency() -> None:
    default, accuracy = load_gate("default"), load_gate("accuracy")
    assert accuracy.limits == default.limits
    assert {name for target in default.targets for name in default.limits_for(target)} - set(
        accuracy.limits_for("litert")
    ) == {"latency_ratio"}
    kept = {"name": "", "description": "", "targets": {}}
    assert accuracy.model_copy(update=kept) == default.model_copy(update=kept)


def test_several_gates_in_one_run() -> None:
    soft = {"name": "soft", "limits": {"fidelity": 0.6}}
    hard = {"name": "hard", "limits": {"fidelity": 0.95}}
    gates = load_gates([soft, hard])
    found = measured(None, Interval(0.8, 0.79, 0.81))
    checks, _ = check_gates(gates, "openvino", found)
    assert [(c.name, c.verdict) for c in checks] == [
        ("fidelity (soft)", Verdict.PASS),
        ("fidelity (hard)", Verdict.FAIL),
    ]
    assert check_gates(gates[:1], "openvino", found)[0][0].name == "fidelity"
    assert [gate.name for gate in load_gates("default, strict")] == ["default", "strict"]
    with pytest.raises(UsageError, match="two gates are called 'default'"):
        load_gates("default,default")
    with pytest.raises(UsageError, match="gate 'nowhere' does not exist"):
        load_gates("default,nowhere")


@pytest.mark.parametrize(
    "content",
    [
        {"limits": {"mask_map_drop": 0.01, "top1_drop": 0.01}},
        {"limits": {"fidelity": None}, "targets": {"litert": {"pose_fidelity": 0.9}}},
    ],
)
def test_a_gate_of_other_tasks_alone_is_refused(content: dict[str, object]) -> None:
    """Its verdict could be nothing but inconclusive, after all the work."""
    gate = load_gate({"name": "mine", **content})
    with pytest.raises(
        UsageError, match=r"gate 'mine' limits .* alone, which a detect model does not have; allowed are map_drop"
    ):
        check_task((load_gate("default"), gate), Task.DETECT)


def test_a_gate_may_serve_several_tasks() -> None:
    shared = load_gate({"name": "shared", "limits": {"mask_map_drop": 0.01, "map_drop": 0.01, "fidelity": 0.9}})
    others = load_gate({"name": "mine", "limits": {"mask_map_drop": 0.01, "fidelity": 0.9}})
    shipped = tuple(map(load_gate, sorted(GATES_FOLDER.glob("*.yaml"))))
    for task in Task:
        assert not check_task(shipped, task), task
    assert not check_task((shared, others), Task.SEGMENT)
    (note,) = check_task((shared, others), Task.DETECT)
    assert note.startswith(
        "gate 'mine' limits mask_map_drop, which a detect model does not have, and no drop that it has"
    )
    assert "limits.map_drop would be one" in note
    (first, _) = check_task((shared, others), Task.CLASSIFY)
    assert "limits.top1_drop would be one" in first
