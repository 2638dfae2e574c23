"""JSON: exact round trip, refusal of other versions and damage, and the shipped schema."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloquant.errors import ArtifactError
from yoloquant.evaluation.results import (
    SCHEMA_VERSION,
    Accuracy,
    Comparison,
    Example,
    GateCheck,
    Interval,
    Latency,
    TargetResult,
    ValidationResult,
)
from yoloquant.report import from_json, json_schema, to_json
from yoloquant.types import Verdict

jsonschema = pytest.importorskip("jsonschema", reason="the schema is checked with jsonschema, a development dependency")

numbers = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | numbers
words = st.text(max_size=12)
per_name = st.dictionaries(words, numbers, max_size=3)
per_size = st.dictionaries(st.sampled_from(["small", "medium", "large"]), maybe)
intervals = st.builds(Interval, numbers, numbers, numbers, numbers, numbers)
accuracies = st.builds(Accuracy, numbers, numbers, per_name, per_size)
latencies = st.builds(Latency, numbers, numbers, st.integers(1, 999), st.integers(1, 64), maybe, maybe)
verdicts = st.sampled_from(Verdict)
checks = st.builds(GateCheck, words, maybe, numbers, verdicts, st.none() | intervals, words)
comparisons = st.builds(
    Comparison,
    st.none() | intervals,
    st.none() | intervals,
    intervals,
    per_name,
    per_size,
    per_name,
    per_size,
    numbers,
    numbers,
    st.integers(0, 10**6),
    maybe,
    maybe,
)
targets = st.builds(
    TargetResult,
    words,
    words,
    words,
    verdicts,
    st.none() | accuracies,
    st.none() | comparisons,
    st.none() | latencies,
    st.integers(0, 2**50),
    st.none() | st.integers(0, 2**50),
    st.lists(checks, max_size=2).map(tuple),
    words,
    st.lists(words, max_size=2).map(tuple),
)
rows = st.lists(st.tuples(*[numbers] * 6), max_size=2).map(tuple)
results = st.builds(
    ValidationResult,
    verdict=verdicts,
    baseline=targets,
    targets=st.lists(targets, max_size=2).map(tuple),
    names=st.lists(words, max_size=3).map(tuple),
    images=st.integers(0, 10**6),
    labels=st.integers(0, 10**6),
    imgsz=st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    gate=words,
    environment=st.dictionaries(words, words | st.integers() | numbers | st.booleans(), max_size=3),
    examples=st.lists(st.builds(Example, words, words, rows, rows), max_size=1).map(tuple),
    seconds=numbers,
)


@settings(max_examples=60, deadline=None)
@given(results)
def test_round_trip_is_exact_and_fits_the_schema(result: ValidationResult) -> None:
    text = to_json(result)
    restored = from_json(text)
    assert restored == result
    assert to_json(restored) == text
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(text))


def test_round_trip_of_a_full_result(result: ValidationResult, unlabelled: ValidationResult) -> None:
    assert from_json(to_json(result)) == result
    assert from_json(to_json(unlabelled)) == unlabelled


def test_version_leads_and_fields_keep_their_declared_order(result: ValidationResult) -> None:
    keys = list(json.loads(to_json(result)))
    assert keys == ["schema_version", *ValidationResult.__dataclass_fields__]


def test_not_finite_is_null_and_comes_back_as_nan_or_none(result: ValidationResult) -> None:
    target = result.targets[0]
    assert target.comparison is not None
    comparison = replace(
        target.comparison,
        fidelity=Interval(math.nan, -math.inf, math.inf),
        latency_ratio=math.nan,
        per_class_drop={"person": math.nan},
    )
    text = to_json(replace(result, targets=(replace(target, comparison=comparison),), environment={"x": math.inf}))
    assert not {"NaN", "Infinity"} & set(text.replace(",", " ").split())
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(text))
    back = from_json(text).targets[0].comparison
    assert back is not None
    assert all(map(math.isnan, (back.fidelity.value, back.fidelity.low, back.per_class_drop["person"])))
    assert back.latency_ratio is None
    assert to_json(from_json(text)) == text


def test_foreign_scalars_and_undecodable_paths_are_written_as_plain_data(result: ValidationResult) -> None:
    import numpy as np

    odd = replace(result, environment={"n": np.float32(0.5), "i": np.int64(3), "p": "a\udc80b"}, examples=())
    restored = from_json(to_json(odd))
    assert restored.environment == {"n": 0.5, "i": 3, "p": "a\ufffdb"}
    to_json(restored).encode("utf-8")


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, None, "1"])
def test_other_versions_are_refused(result: ValidationResult, version: Any) -> None:
    data = {**json.loads(to_json(result)), "schema_version": version}
    with pytest.raises(ArtifactError, match=f"schema_version.*reads {SCHEMA_VERSION}"):
        from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("verdict",), "great", "verdict"),
        (("images",), "128", "images"),
        (("images",), None, "images"),
        (("imgsz",), [640], "imgsz"),
        (("baseline",), [], "baseline"),
        (("targets",), {}, "targets"),
        (("targets", 0, "comparison", "fidelity", "value"), "0.9", "value"),
        (("surprise",), 1, "unknown surprise"),
        (("targets", 1, "checks", 0, "extra"), 1, r"targets\[1\].checks\[0\] has unknown extra"),
    ],
)
def test_damage_is_named(result: ValidationResult, path: tuple[Any, ...], value: Any, match: str) -> None:
    data = json.loads(to_json(result))
    node = data
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    with pytest.raises(ArtifactError, match=match):
        from_json(json.dumps(data))


def test_missing_fields_are_named(result: ValidationResult) -> None:
    data = json.loads(to_json(result))
    del data["targets"][0]["verdict"]
    with pytest.raises(ArtifactError, match=r"report.targets\[0\] lacks verdict"):
        from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": NaN}', "[" * 100_000])
def test_text_that_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        from_json(text)


def test_every_truncation_is_refused(result: ValidationResult) -> None:
    text = to_json(result).rstrip()
    for end in range(0, len(text), 997):
        with pytest.raises(ArtifactError):
            from_json(text[:end])


def test_shipped_schema_is_current_and_documents_every_field() -> None:
    shipped = files("yoloquant.report") / "schema" / f"report-{SCHEMA_VERSION}.schema.json"
    schema = json.loads(shipped.read_text(encoding="utf-8"))
    assert schema == json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    documented = (Accuracy, GateCheck, Comparison, Example, Interval, TargetResult)
    for node in [schema, *(schema["$defs"][cls.__name__] for cls in documented)]:
        assert all("description" in prop for prop in node["properties"].values())
    assert schema["additionalProperties"] is False
