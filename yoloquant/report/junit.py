"""JUnit XML for CI systems: one test suite per target, one test case per gate check.

A failed check is a ``failure``, a target that could not be built or run an ``error``. An inconclusive check is
``skipped`` by default: GitLab, Jenkins and GitHub's reporters then show it apart, with its message, and leave the job's
fate to yoloquant's exit code. The attributes and the order of elements are those of Jenkins' ``junit-10.xsd``.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from ..evaluation.results import GateCheck, TargetResult, ValidationResult
from ..types import Verdict
from .numbers import is_number
from .sentences import check_interval, check_limit, check_sentence, check_value, headline
from .text import clean

_TAGS = {Verdict.FAIL: "failure", Verdict.ERROR: "error", Verdict.INCONCLUSIVE: "skipped"}


def to_junit(result: ValidationResult, *, inconclusive_fails: bool = False) -> str:
    """The verdict of every check as JUnit XML.

    Args:
        result: Outcome of a validation.
        inconclusive_fails: Write inconclusive checks as failures instead of skipped tests.

    Returns:
        An XML document as text.
    """
    root = ET.Element("testsuites", name="yoloquant")
    tags = {**_TAGS, Verdict.INCONCLUSIVE: "failure"} if inconclusive_fails else _TAGS
    for index, target in enumerate(result.targets):
        suite = _suite(root, target, index, result)
        for check in _checks(target):
            _case(suite, target.target, check, tags)
        # the notes of the whole with every target: CI systems show suites one by one
        _finish(suite, (*result.notes, *target.notes))
    # a file without a failing case is green to every CI system
    if not result.targets or (result.verdict is Verdict.ERROR and not root.findall(".//error")):
        suite = ET.SubElement(root, "testsuite", name="validation", id=str(len(result.targets)))
        _case(suite, "validation", GateCheck("measured", None, 0.0, result.verdict, message=headline(result)), tags)
        _count(suite)
    if is_number(result.seconds):
        root.set("time", f"{result.seconds:.3f}")
    return _document(root)


def joined_junit(results: Mapping[str, ValidationResult]) -> str:
    """Several validations as one JUnit XML, every suite named after its own.

    Args:
        results: Outcomes by name.
    """
    root = ET.Element("testsuites", name="yoloquant")
    for name, result in results.items():
        for suite in ET.fromstring(to_junit(result).encode()).findall("testsuite"):
            suite.set("name", clean(f"{name}: {suite.get('name')}"))
            suite.set("id", str(len(root)))
            root.append(suite)
    return _document(root)


def error_junit(message: str) -> str:
    """A validation that ended before there was a verdict, as JUnit XML.

    Args:
        message: What went wrong.
    """
    root = ET.Element("testsuites", name="yoloquant")
    suite = ET.SubElement(root, "testsuite", name="validation", id="0")
    _case(suite, "validation", GateCheck("measured", None, 0.0, Verdict.ERROR, message=message), _TAGS)
    _count(suite)
    return _document(root)


def _document(root: ET.Element) -> str:
    """The whole file, once its suites are complete."""
    for name in ("tests", "failures", "errors"):
        # counted from the suites: readers disagree on whether they count elements or believe attributes
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, target: TargetResult, index: int, result: ValidationResult) -> ET.Element:
    suite = ET.SubElement(root, "testsuite", name=clean(target.target), id=str(index))
    # an empty property is no measurement of 0
    known = {name: value for name, value in _properties(target, result).items() if value}
    if known:
        parent = ET.SubElement(suite, "properties")
        for name, value in known.items():
            ET.SubElement(parent, "property", name=name, value=clean(value))
    return suite


def _properties(target: TargetResult, result: ValidationResult) -> dict[str, str]:
    """Measurements for programs: fractions, milliseconds and bytes, as in the JSON report; empty if unknown."""
    comparison, latency = target.comparison, target.latency
    drop = comparison.map_drop if comparison else None
    return {
        "baseline": result.baseline.path,
        "baseline_sha256": result.baseline.sha256,
        "artifact": target.path,
        "artifact_sha256": target.sha256,
        "scheme": target.scheme,
        "map50_95": _number(target.accuracy.map50_95 if target.accuracy else None),
        "map_drop": _number(drop.value if drop else None),
        "map_drop_low": _number(drop.low if drop else None),
        "map_drop_high": _number(drop.high if drop else None),
        "fidelity": _number(comparison.fidelity.value if comparison else None),
        "latency_median_ms": _number(latency.median_ms if latency else None),
        "size_bytes": str(target.size_bytes or ""),
    }


def _number(value: float | None) -> str:
    return f"{value:.6g}" if is_number(value) else ""


def _checks(target: TargetResult) -> list[GateCheck]:
    """The gate's checks, after one that says whether the target was measured at all.

    A verdict that no check accounts for gets a test case of its own: it must never vanish from the CI's view.
    """
    broken = bool(target.error) or target.verdict is Verdict.ERROR
    message = target.error or "the target was asked for and not measured"
    measured = GateCheck(
        "measured", None, 0.0, Verdict.ERROR if broken else Verdict.PASS, message=message if broken else ""
    )
    checks = [measured, *target.checks]
    if target.verdict is not Verdict.PASS and all(check.verdict is not target.verdict for check in checks):
        checks.append(GateCheck("verdict", None, 0.0, target.verdict, message=f"the verdict is {target.verdict.value}"))
    return checks


def _case(suite: ET.Element, target: str, check: GateCheck, tags: dict[Verdict, str]) -> None:
    case = ET.SubElement(suite, "testcase", name=clean(check.name), classname=f"yoloquant.{clean(target)}")
    if check.verdict in tags:
        tag = tags[check.verdict]
        message = clean(check_sentence(check))
        # one line in the attribute, which readers list; the whole text is in the element
        outcome = ET.SubElement(case, tag, message=message.splitlines()[0] if message.strip() else check.verdict.value)
        if tag != "skipped":
            outcome.set("type", check.verdict.value)
            outcome.text = message
    if check.value is not None:
        interval = check_interval(check)
        text = f"value {check_value(check.metric, check.value)}, limit {check_limit(check)}"
        ET.SubElement(case, "system-out").text = clean(text + (f", interval {interval}" if interval else ""))


def _finish(suite: ET.Element, notes: tuple[str, ...]) -> None:
    _count(suite)
    if notes:
        ET.SubElement(suite, "system-out").text = clean("\n".join(notes))


def _count(suite: ET.Element) -> None:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
