"""Files that services read hold the services' own schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "action.yml": ["vendor.github-actions"],
    "compose.yaml": ["vendor.compose-spec"],
    "ci/gitlab.yml": ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}


def check(path: Path, schema: list[str]) -> subprocess.CompletedProcess[str]:
    # The schemas that come with it: nothing is fetched.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", *schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", FILES)
def test_files_hold_their_schemas(name: str, tmp_path: Path) -> None:
    done = check(ROOT / name, FILES[name])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_key_that_github_does_not_know_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "action.yml"
    broken.write_text((ROOT / "action.yml").read_text().replace("using: composite", "using: composit"))
    assert check(broken, FILES["action.yml"]).returncode == 1
