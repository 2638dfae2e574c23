"""Keep one comment of a GitHub pull request up to date with the Markdown report.

Usage: ``python -m yoloquant.report.pull_request report.md`` in a GitHub workflow. Repository, pull request
and API come from the environment that GitHub sets (``GITHUB_REPOSITORY``, ``GITHUB_EVENT_PATH``, ``GITHUB_API_URL``),
the token from ``GITHUB_TOKEN``.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, UsageError, YoloquantError

MARK = "<!-- yoloquant: {name} -->"  # invisible in the comment; how the next run finds it
TIMEOUT_S = 30
PAGE = 100  # comments a request: the most that the API gives
MAX_BODY = 65_000  # characters; the API refuses more than 65,536


@dataclass(frozen=True)
class PullRequest:
    """Where comments go.

    Attributes:
        api: Base address of the REST API.
        repository: ``owner/name``.
        number: The pull request's number.
        token: What permits writing; sent to ``api`` alone.
    """

    api: str
    repository: str
    number: int
    token: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> PullRequest | None:
        """Read what GitHub sets for a workflow.

        Returns:
            The pull request; None where the workflow was not started by one.

        Raises:
            UsageError: A variable is missing, or the event cannot be read.
        """
        missing = [n for n in ("GITHUB_REPOSITORY", "GITHUB_EVENT_PATH", "GITHUB_TOKEN") if not environment.get(n)]
        if missing:
            raise UsageError(
                f"{', '.join(missing)} is not set; run this in a GitHub workflow with env: GITHUB_TOKEN: "
                "${{ github.token }}"
            )
        try:
            event = json.loads(Path(environment["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
            number = (event.get("pull_request") or {}).get("number")
        except (OSError, ValueError, AttributeError) as exc:
            raise UsageError(f"the workflow's event cannot be read: {exc}") from exc
        # pushes and schedules start workflows too
        if number is None:
            return None
        api = environment.get("GITHUB_API_URL", "https://api.github.com").rstrip("/")
        return cls(api, environment["GITHUB_REPOSITORY"], int(number), environment["GITHUB_TOKEN"])


def update_comment(target: PullRequest, report: str, name: str = "report") -> str:
    """Write the report into the comment that an earlier run made, or into a new one.

    Args:
        target: The pull request.
        report: Markdown.
        name: Tells several reports of one pull request apart.

    Returns:
        Address of the comment.

    Raises:
        OutputError: The API refuses, or cannot be reached.
    """
    mark = MARK.format(name=name)
    body = f"{mark}\n{report}"
    if len(body) > MAX_BODY:
        body = f"{body[:MAX_BODY]}\n\n... the report is longer; see the workflow's artifacts"
    place = f"/repos/{target.repository}/issues"
    # found by an invisible mark: a new comment for every push would bury the conversation
    old = next((c for c in _comments(target, place) if str(c.get("body", "")).startswith(mark)), None)
    if old is None:
        made = _request(target, "POST", f"{place}/{target.number}/comments", {"body": body})
    else:
        made = _request(target, "PATCH", f"{place}/comments/{old['id']}", {"body": body})
    return str(made.get("html_url", ""))


def _comments(target: PullRequest, place: str) -> Iterator[dict[str, Any]]:
    page = 1
    while True:
        found = _request(target, "GET", f"{place}/{target.number}/comments?per_page={PAGE}&page={page}")
        yield from found
        if len(found) < PAGE:
            return
        page += 1


def _request(target: PullRequest, method: str, path: str, content: Any = None) -> Any:
    request = urllib.request.Request(
        target.api + path,
        data=None if content is None else json.dumps(content).encode(),
        method=method,
        headers={
            "Authorization": f"Bearer {target.token}",
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as exc:
        hint = "; give the job permissions: pull-requests: write" if exc.code in {401, 403, 404} else ""
        raise OutputError(f"the comment was not written: {method} answered {exc.code} {exc.reason}{hint}") from exc
    except (OSError, ValueError) as exc:
        raise OutputError(f"the comment was not written: {exc}") from exc


def main(arguments: list[str]) -> int:
    """Entry point; a run without a pull request writes nothing and is no error."""
    try:
        if len(arguments) != 1:
            raise UsageError("give one argument: the report.md to write")
        path = Path(arguments[0])
        if not path.is_file():
            raise UsageError(f"report '{path}' does not exist; run yoloquant first")
        target = PullRequest.from_environment(os.environ)
        if target is None:
            print("no pull request: no comment")
            return 0
        address = update_comment(
            target, path.read_text(encoding="utf-8"), os.environ.get("YOLOQUANT_COMMENT", "report")
        )
        print(f"comment: {address}")
    except YoloquantError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
