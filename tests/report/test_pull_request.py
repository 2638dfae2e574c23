"""One comment for each pull request, against a stand-in of the REST API on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from github_api import Api, serve

from yoloquant.errors import OutputError, UsageError
from yoloquant.report.pull_request import MAX_BODY, PullRequest, main, update_comment


@pytest.fixture
def api() -> Iterator[Api]:
    with serve([{"id": i, "body": "a person's words"} for i in range(103)]) as server:
        yield server


def request_to(api: Api) -> PullRequest:
    return PullRequest(f"http://127.0.0.1:{api.server_port}", "owner/name", 7, "secret")


def test_the_second_run_writes_into_the_first_one_s_comment(api: Api) -> None:
    target = request_to(api)
    for text in ("first", "second", "third"):
        assert update_comment(target, text) == "here"
    ours = [c["body"] for c in api.comments if "yoloquant" in c["body"]]
    assert len(ours) == 1 and ours[0].endswith("\nthird")
    assert all(c["body"] == "a person's words" for c in api.comments[:103])
    assert set(api.tokens) == {"Bearer secret"}


def test_reports_of_other_names_have_comments_of_their_own(api: Api) -> None:
    for name in ("a", "b", "a"):
        update_comment(request_to(api), name, name)
    assert len(api.comments) == 103 + 2


def test_a_long_report_is_cut(api: Api) -> None:
    update_comment(request_to(api), "x" * 100_000)
    assert MAX_BODY < len(api.comments[-1]["body"]) < 65_536


def test_a_token_without_rights_is_one_sentence(api: Api) -> None:
    api.refuse = 403
    with pytest.raises(OutputError, match=r"answered 403 .*pull-requests: write"):
        update_comment(request_to(api), "text")


def test_the_environment_of_a_workflow(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report, event = tmp_path / "report.md", tmp_path / "event.json"
    report.write_text("the report")
    event.write_text(json.dumps({"pull_request": {"number": 7}}))
    for name, value in {
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_TOKEN": "secret",
        "GITHUB_API_URL": f"http://127.0.0.1:{api.server_port}",
    }.items():
        monkeypatch.setenv(name, value)
    assert main([str(report)]) == 0 and api.comments[-1]["body"].endswith("the report")
    event.write_text("{}")  # a push
    assert main([str(report)]) == 0 and len(api.comments) == 104
    assert main([str(tmp_path / "none.md")]) == 2
    monkeypatch.delenv("GITHUB_TOKEN")
    assert main([str(report)]) == 2
    assert "GITHUB_TOKEN is not set" in capsys.readouterr().err


def test_an_event_that_is_no_json(tmp_path: Path) -> None:
    broken = tmp_path / "event.json"
    broken.write_text("[")
    names = {"GITHUB_REPOSITORY": "o/n", "GITHUB_EVENT_PATH": str(broken), "GITHUB_TOKEN": "t"}
    with pytest.raises(UsageError, match="event cannot be read"):
        PullRequest.from_environment(names)
