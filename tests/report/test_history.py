"""The page over releases: what is read of reports of any age, their order, and what cannot be compared."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from yoloquant.api import history
from yoloquant.errors import DataError
from yoloquant.evaluation.results import ValidationResult
from yoloquant.report import to_json


def _release(result: ValidationResult, folder: Path, data: str = "a" * 64, **changes: object) -> None:
    (folder / "report").mkdir(parents=True)
    result = replace(result, environment={"data_sha256": data})
    content = {**json.loads(to_json(result)), **changes}
    (folder / "report" / "report.json").write_text(json.dumps(content))


def test_releases_in_order_with_their_figures(result: ValidationResult, tmp_path: Path) -> None:
    for name in ("v2", "v10", "v9"):
        _release(result, tmp_path / "all" / name, schema_version=2, gate=name)  # an older report is read too
    found = history(tmp_path / "all", output=tmp_path / "page")
    assert found.releases == ("v2", "v9", "v10") and found.page == tmp_path / "page" / "history.html"
    rows = list(csv.DictReader((tmp_path / "page" / "history.csv").open()))
    assert len(rows) == 3 * (1 + len(result.targets)) and [r["gate"] for r in rows][-1] == "v10"
    measured = next(t for t in result.targets if t.comparison and t.accuracy and t.latency)
    row = next(r for r in rows if r["target"] == measured.target)
    assert measured.comparison and measured.accuracy and measured.latency
    assert float(row["fidelity"]) == measured.comparison.fidelity.value
    assert float(row["map50_95"]) == measured.accuracy.map50_95
    assert float(row["latency_ms"]) == measured.latency.median_ms and int(row["size_bytes"]) == measured.size_bytes
    page = (tmp_path / "page" / "history.html").read_text()
    assert page.count("<svg") == 4 and "nan" not in page and "http" not in re.sub(r"http-equiv", "", page)
    assert f"{measured.target}, v9: {measured.accuracy.map50_95 * 100:.2f}" in page
    line = re.search(r'<polyline [^>]*points="([^"]+)"', page)
    assert line and len(line.group(1).split()) == 3
    assert "Judged on other images" not in page


def test_gaps_and_other_data_are_shown(result: ValidationResult, tmp_path: Path) -> None:
    _release(result, tmp_path / "a")
    _release(result, tmp_path / "b", targets=[])
    _release(result, tmp_path / "c", data="b" * 64)
    found = history([tmp_path / name for name in "abc"], output=tmp_path / "page")
    page = (tmp_path / "page" / "history.html").read_text()
    assert found.releases == ("a", "b", "c") and "before, so that its figures do not compare with it: c." in page
    target = next(t for t in result.targets if t.comparison).target
    assert f"{target}, a:" in page and f"{target}, b:" not in page


def test_comparisons_that_lie_beside_are_no_releases(result: ValidationResult, tmp_path: Path) -> None:
    """As the Action's artifact holds both."""
    for name in ("v1", "v2"):
        _release(result, tmp_path / "all" / name)
        compared = replace(result, baseline=replace(result.baseline, target="old"))
        (tmp_path / "all" / name / "compare").mkdir()
        (tmp_path / "all" / name / "compare" / "report.json").write_text(to_json(compared))
    assert history(tmp_path / "all").releases == ("v1", "v2")
    with pytest.raises(DataError, match=r"holds no report\.json"):
        history(tmp_path / "all" / "v1" / "compare")


def test_names_from_outside_are_escaped(result: ValidationResult, tmp_path: Path) -> None:
    _release(result, tmp_path / "<b>1", gate="<script>")
    history(tmp_path, output=tmp_path / "page")
    page = (tmp_path / "page" / "history.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "&lt;b&gt;1" in page


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no report was named"):
        history([])
    with pytest.raises(DataError, match=r"holds no report\.json"):
        history(tmp_path)
    for content in ("{", "{}", "[]", '{"baseline": 3, "targets": []}'):
        (tmp_path / "report.json").write_text(content)
        with pytest.raises(DataError, match="is no report of yoloquant, or damaged"):
            history(tmp_path)
