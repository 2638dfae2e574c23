"""JUnit XML: structure of the common schema, and every verdict in its place."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from yoloquant.evaluation.results import GateCheck, TargetResult, ValidationResult
from yoloquant.report import to_junit
from yoloquant.report.junit import joined_junit
from yoloquant.types import Verdict

# Elements and attributes that Jenkins' junit-10.xsd allows, which GitLab and GitHub's reporters read too.
ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "disabled", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id"},
    "testcase": {"name", "classname", "assertions", "time", "status"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
    "properties": set(),
    "property": {"name", "value"},
    "system-out": set(),
}
CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out"],
    "testcase": ["skipped", "error", "failure", "system-out"],
    "properties": ["property"],
}


def assert_valid(root: ET.Element) -> None:
    for node in root.iter():
        assert set(node.attrib) <= ATTRIBUTES[node.tag], node.tag
        order = CHILDREN.get(node.tag, [])
        ranks = [order.index(child.tag) for child in node]
        assert ranks == sorted(ranks), node.tag
    for suite in root.iter("testsuite"):
        cases = suite.findall("testcase")
        counted = {t: sum(c.find(t) is not None for c in cases) for t in ("failure", "error", "skipped")}
        assert [suite.get(n) for n in ("tests", "failures", "errors", "skipped")] == [
            str(n) for n in (len(cases), counted["failure"], counted["error"], counted["skipped"])
        ]
        assert len({c.get("name") for c in cases}) == len(cases)
    for name in ("tests", "failures", "errors"):
        assert root.get(name) == str(sum(int(s.get(name) or 0) for s in root))


def outcome(root: ET.Element, target: str, check: str) -> str:
    case = root.find(f"testsuite[@name='{target}']/testcase[@name='{check}']")
    assert case is not None
    return next((child.tag for child in case if child.tag != "system-out"), "passed")


def test_every_verdict_has_its_element(result: ValidationResult) -> None:
    root = ET.fromstring(to_junit(result).encode())
    assert_valid(root)
    assert [suite.get("name") for suite in root] == ["openvino", "onnxruntime", "litert", "tensorrt"]
    assert outcome(root, "openvino", "map_drop") == "passed"
    assert outcome(root, "onnxruntime", "map_drop") == "skipped"
    assert outcome(root, "litert", "map_drop") == "failure"
    assert outcome(root, "tensorrt", "measured") == "error"
    skipped = root.find(".//skipped")
    assert skipped is not None and "900 more images" in (skipped.get("message") or "")
    error = root.find(".//error")
    assert error is not None and error.text == "needs 'tensorrt_rtx' <b>&\nsecond line ]]>"


def test_inconclusive_may_fail_instead(result: ValidationResult) -> None:
    root = ET.fromstring(to_junit(result, inconclusive_fails=True).encode())
    assert_valid(root)
    assert outcome(root, "onnxruntime", "map_drop") == "failure"
    assert root.find(".//skipped") is None


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.PASS])
def test_a_verdict_without_checks_never_vanishes(result: ValidationResult, verdict: Verdict) -> None:
    lonely = replace(result, verdict=verdict, targets=(TargetResult("x", "", "", verdict),))
    root = ET.fromstring(to_junit(lonely).encode())
    assert_valid(root)
    assert (
        root.find(".//failure") is not None or root.find(".//error") is not None or root.find(".//skipped") is not None
    )


def test_no_target_at_all_is_an_error(result: ValidationResult) -> None:
    root = ET.fromstring(to_junit(replace(result, targets=())).encode())
    assert_valid(root)
    assert root.get("errors") == "1"


@pytest.mark.parametrize("text", ["]]><x/>", "a\x00b\x1b[31m", "\ud800", "<!-- --", "&amp;", "\ufffe"])
def test_any_text_is_well_formed(result: ValidationResult, text: str) -> None:
    check = GateCheck(text, float("nan"), float("inf"), Verdict.FAIL, message=text)
    target = TargetResult(text, text, text, Verdict.FAIL, checks=(check,), error=text, notes=(text,))
    root = ET.fromstring(to_junit(replace(result, targets=(target,), gate=text)).encode("utf-8"))
    assert_valid(root)
    assert "nan" not in ET.tostring(root, encoding="unicode").lower()


def test_several_reports_are_one_document(result: ValidationResult) -> None:
    root = ET.fromstring(joined_junit({"openvino": result, "]]> nasty": result}).encode())
    assert_valid(root)
    one = ET.fromstring(to_junit(result).encode())
    assert int(root.get("tests") or 0) == 2 * int(one.get("tests") or 0) > 0
    assert root[0].get("name") == "openvino: openvino" and root[4].get("name") == "]]> nasty: openvino"
    assert [suite.get("id") for suite in root] == [str(i) for i in range(8)]
