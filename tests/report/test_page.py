"""The page as text: nothing from outside becomes markup, nothing is fetched, every kind of result renders."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from yoloquant.evaluation.results import GateCheck, Interval, TargetResult, ValidationResult
from yoloquant.report import to_html
from yoloquant.types import Verdict

VOID = {"meta", "link", "br", "hr", "img", "input", "col"}


class Outline(HTMLParser):
    """Elements, ids and text of a page; refuses tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_same_result_same_page(result: ValidationResult) -> None:
    assert to_html(result) == to_html(result)


def test_structure_is_sound(result: ValidationResult) -> None:
    outline = Outline(to_html(result))
    ids = Counter(attrs["id"] for _, attrs in outline.tags if attrs.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    used = {
        v[1:] for _, a in outline.tags for k, v in a.items() if k in ("href", "xlink:href") and v and v.startswith("#")
    }
    used |= {a["aria-labelledby"] or "" for _, a in outline.tags if "aria-labelledby" in a}
    assert used and used <= set(ids)
    for tag, attrs in outline.tags:
        if attrs.get("role") == "img":
            assert attrs.get("aria-label"), tag
        if tag == "th":
            assert attrs.get("scope") in ("row", "col")
    assert [tag for tag, _ in outline.tags].count("caption") == [tag for tag, _ in outline.tags].count("table")


def test_no_script_and_no_address_outside(result: ValidationResult) -> None:
    page = to_html(result)
    outline = Outline(page)
    assert not {"script", "iframe", "object", "embed"} & {tag for tag, _ in outline.tags}
    assert not [name for _, attrs in outline.tags for name in attrs if name.startswith("on")]
    links = [
        v or "" for _, a in outline.tags for k, v in a.items() if k in ("src", "href", "xlink:href", "srcset", "action")
    ]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    style = "".join(re.findall(r"<style.*?</style>", page, flags=re.DOTALL))
    assert "@import" not in style and "http" not in style


def test_names_are_shown_as_text(result: ValidationResult) -> None:
    text = Outline(to_html(result)).text
    for name in (
        "<script>alert(1)</script>",
        "a|b",
        "]]>",
        '" onload="alert(2)',
        "猫 $x_1$",
        "street <b>&.jpg",
        "1.23 <&>",
    ):
        assert name in text
    assert "needs 'tensorrt_rtx' <b>&" in text
    assert "\x00" not in to_html(result)


def test_what_a_reader_must_find(result: ValidationResult) -> None:
    text = Outline(to_html(result)).text
    for part in (
        "ERROR",
        "openvino",
        "44.44",
        "+2.13",
        "+1.43 to +2.83",
        "900 more images",
        "12 more classes",
        "0.932",
    ):
        assert part in text
    assert "Image left out: the file is no longer there." in text
    assert "versions · onnx" in text


@pytest.mark.parametrize("verdict", list(Verdict))
def test_verdict_is_told_by_word_and_symbol(result: ValidationResult, verdict: Verdict) -> None:
    page = to_html(replace(result, verdict=verdict))
    assert re.search(rf'id="verdict">.*?<span>{verdict.value.upper()}</span>', page, flags=re.DOTALL)
    assert f"<title>{verdict.value.upper()} " in page


def test_unlabelled_run(unlabelled: ValidationResult) -> None:
    text = Outline(to_html(unlabelled)).text
    assert "no labels" in text and "Fidelity loss" in text and "+2.13" not in text


def test_smallest_result(result: ValidationResult) -> None:
    bare = TargetResult("fp32", "", "", Verdict.PASS)
    page = to_html(ValidationResult(Verdict.ERROR, bare, (), (), 0, 0, (640, 640), ""))
    text = Outline(page).text
    assert "No target was measured" in text and "Examples" not in text
    lonely = replace(result, targets=(TargetResult("x", "", "", Verdict.ERROR),), examples=(), environment={})
    assert "Asked for and not measured" in Outline(to_html(lonely)).text


def test_no_nan_is_shown(result: ValidationResult) -> None:
    nan = math.nan
    target = result.targets[2]
    assert target.comparison is not None and target.latency is not None
    comparison = replace(
        target.comparison,
        map_drop=Interval(nan, nan, nan),
        fidelity=Interval(nan, nan, nan, nan),
        per_class_drop={"a": nan},
        per_size_drop={"small": nan},
        fidelity_per_size={"small": nan},
        confidence_shift=nan,
        latency_ratio=math.inf,
        size_ratio=nan,
    )
    odd = replace(
        target,
        comparison=comparison,
        latency=replace(target.latency, median_ms=nan),
        checks=(GateCheck("map_drop", nan, 0.005, Verdict.ERROR),),
    )
    text = Outline(to_html(replace(result, targets=(odd,), seconds=nan))).text.lower()
    assert not {"nan", "inf", "none", "nan%"} & set(re.findall(r"[\w%]+", text))


def test_names_from_outside_in_every_field(result: ValidationResult) -> None:
    evil = '"><img src=x onerror=alert(1)>'
    target = replace(result.targets[0], target=evil, path=evil, scheme=evil, error=evil, notes=(evil,))
    checks = (GateCheck(evil, 1.0, 1.0, Verdict.FAIL, message=evil),)
    odd = replace(result, gate=evil, environment={evil: [evil]}, targets=(replace(target, checks=checks),))
    assert "img" not in {tag for tag, _ in Outline(to_html(odd)).tags}
