"""The composite action's own steps, as plain shell, with a stand-in for the command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$@" >> "$SEEN"
if [ "$1" = compare ]; then CODE=$COMPARED; fi
for word in "$@"; do
  case $1$word in
    runoutput=*) mkdir -p "${word#output=}/report"; echo REPORT > "${word#output=}/report/report.md"
      touch "${word#output=}/report/results.npz" ;;
    compareoutput=*) mkdir -p "${word#output=}"; echo COMPARED > "${word#output=}/report.md" ;;
  esac
done
exit $CODE
"""


def run(tmp_path: Path, code: int, **inputs: str) -> tuple[int, str, list[str], str, str]:
    program = tmp_path / "bin" / "yoloquant"
    program.parent.mkdir(exist_ok=True)
    program.write_text(FAKE)
    program.chmod(0o755)
    output, summary, seen = tmp_path / "output", tmp_path / "summary", tmp_path / "seen"
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "SEEN": str(seen),
        "CODE": str(code),
        "COMPARED": "0",
        "OUTPUT": str(tmp_path / "out"),
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(summary),
        **inputs,
    }
    done = subprocess.run(
        ["bash", str(ROOT / "ci" / "run_action.sh")], env=environment, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, seen.read_text().splitlines(), output.read_text(), summary.read_text()


@pytest.mark.parametrize(
    ("code", "word"), [(0, "notice"), (1, "error"), (2, "error"), (3, "warning"), (4, "error"), (70, "error")]
)
def test_the_exit_code_is_the_command_s(tmp_path: Path, code: int, word: str) -> None:
    found, shown, _, output, summary = run(tmp_path, code, RECIPE="recipe.yaml")
    assert found == code and output == f"code={code}\n" and summary == "REPORT\n"
    assert f"::{word} title=yoloquant::" in shown


@pytest.mark.parametrize(("code", "compared", "found"), [(0, 1, 1), (0, 0, 0), (3, 1, 3), (1, 0, 1)])
def test_the_last_release_is_compared_with_where_it_is_named(
    tmp_path: Path, code: int, compared: int, found: int
) -> None:
    got, shown, words, output, summary = run(
        tmp_path, code, RECIPE="r.yaml", OLD="last/results.npz", COMPARED=str(compared), COMPARE_ARGUMENTS="gate=mine"
    )
    assert got == found and output == f"code={found}\n" and summary == "REPORT\nCOMPARED\n"
    out = tmp_path / "out"
    assert words[words.index("compare") :] == [
        "compare",
        "old=last/results.npz",
        f"new={out}/report",
        "gate=mine",
        f"output={out}/compare",
        "inconclusive=3",
    ]
    assert shown.count("title=yoloquant compare::") == 1


def test_inputs_become_arguments_and_are_no_code(tmp_path: Path) -> None:
    *_, words, _, _ = run(
        tmp_path, 0, RECIPE="my recipe.yaml", ARGUMENTS="limit=8 gate=$(touch${IFS}bad)", INCONCLUSIVE="0"
    )
    assert words[:3] == ["run", "my recipe.yaml", "limit=8"]
    assert words[3] == "gate=$(touch${IFS}bad)" and words[-1] == "inconclusive=0"
    assert not (tmp_path / "bad").exists()


def test_the_action_is_composite_and_reads_inputs_through_the_environment_alone() -> None:
    """An input inside a script's text would run as code."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert action["runs"]["using"] == "composite" and action["name"] and action["description"]
    for step in action["runs"]["steps"]:
        assert ("run" in step) != ("uses" in step)
        assert "${{" not in step.get("run", "")
        assert "run" not in step or step["shell"] == "bash"
    assert all(value["description"] for value in (*action["inputs"].values(), *action["outputs"].values()))


def test_the_template_for_gitlab_takes_inconclusive_as_a_warning() -> None:
    job = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())[".yoloquant"]
    assert job["allow_failure"] == {"exit_codes": [3]} and job["artifacts"]["reports"]["junit"].endswith("junit.xml")
