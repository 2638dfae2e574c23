"""The composite action's own steps, as plain shell, with a stand-in for the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from github_api import Api, serve

from yoloquant.report.pull_request import MARK

ROOT = Path(__file__).resolve().parents[2]
FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$@" >> "$SEEN"
if [ "$1" = compare ]; then CODE=$COMPARED; fi
for word in "$@"; do
  case $1$word in
    runoutput=*) mkdir -p "${word#output=}/report"; echo "${REPORT:-REPORT}" > "${word#output=}/report/report.md"
      [ -n "${MASKS:-}" ] || touch "${word#output=}/report/results.npz" ;;
    compareoutput=*) mkdir -p "${word#output=}"; echo COMPARED > "${word#output=}/report.md" ;;
  esac
done
exit $CODE
"""


def stand_in(tmp_path: Path) -> str:
    """The search path on which the command is a stand-in."""
    program = tmp_path / "bin" / "yoloquant"
    program.parent.mkdir(exist_ok=True)
    program.write_text(FAKE)
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def run(tmp_path: Path, code: int, **inputs: str) -> tuple[int, str, list[str], str, str]:
    output, summary, seen = tmp_path / "output", tmp_path / "summary", tmp_path / "seen"
    environment = {
        **os.environ,
        "PATH": stand_in(tmp_path),
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


def test_arguments_may_stand_one_below_the_other(tmp_path: Path) -> None:
    """As ``arguments: |`` gives them in a workflow."""
    *_, words, _, _ = run(
        tmp_path, 0, ARGUMENTS="model=a.pt\ndata=b.yaml\n", OLD="last.npz", COMPARE_ARGUMENTS="limit=8\ngate=mine\n"
    )
    assert words[:3] == ["run", "model=a.pt", "data=b.yaml"]
    compared = words[words.index("compare") :]
    assert compared[3:5] == ["limit=8", "gate=mine"]


def test_an_inconclusive_verdict_is_no_pass_whatever_its_exit_code(tmp_path: Path) -> None:
    heading = "### ❔ yoloquant: INCONCLUSIVE"
    code, shown, *_ = run(tmp_path, 0, RECIPE="r.yaml", INCONCLUSIVE="0", REPORT=heading)
    assert code == 0 and "::warning title=yoloquant::inconclusive" in shown and "::notice" not in shown


def test_a_release_whose_results_hold_masks_is_compared_as_artifacts(tmp_path: Path) -> None:
    """Their results are not kept; left out, the comparison would be a silent pass."""
    code, shown, words, *_ = run(tmp_path, 0, RECIPE="r.yaml", OLD="v1_exports", COMPARED="1", MASKS="yes")
    assert code == 1 and words[words.index("compare") + 2] == f"new={tmp_path / 'out'}"
    assert "::error title=yoloquant compare::" in shown


def comment(tmp_path: Path, api: Api, **inputs: str) -> tuple[int, str]:
    event, out = tmp_path / "event.json", tmp_path / "out"
    event.write_text(json.dumps({"pull_request": {"number": 7}}))
    for name in ("report", "compare"):
        (out / name).mkdir(parents=True, exist_ok=True)
        (out / name / "report.md").write_text(f"the {name}")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OUTPUT": str(out),
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_API_URL": f"http://127.0.0.1:{api.server_port}",
        "GITHUB_TOKEN": "secret",
        **inputs,
    }
    script = ["bash", str(ROOT / "ci" / "comment_action.sh")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout


def test_comments_bear_the_name_of_the_use(tmp_path: Path) -> None:
    with serve([]) as api:
        for name in ("", "nano"):
            assert comment(tmp_path, api, NAME=name)[0] == 0
        marks = [each["body"].splitlines()[0] for each in api.comments]
    assert marks == [MARK.format(name=name) for name in ("report", "compare", "report-nano", "compare-nano")]


def test_a_comment_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    """Pull requests from forks have a token that may only read, and their verdict is no worse for it."""
    with serve([]) as api:
        api.refuse = 403
        code, said = comment(tmp_path, api)
    first, second = said.splitlines()
    assert code == 0 and first == second and first.startswith("::warning title=yoloquant comment::error: ")
    assert "answered 403" in first and "pull-requests: write" in first


def test_packages_are_kept_by_what_decides_them(tmp_path: Path) -> None:
    def key(extras: str) -> str:
        script = [sys.executable, str(ROOT / "ci" / "cache_key.py")]
        environment = {**os.environ, "EXTRAS": extras}
        return subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True).stdout.strip()

    assert key("openvino,litert") == key("litert, openvino") != key("openvino")
    assert key("").startswith("yoloquant-") and "\n" not in key("")


def test_the_caller_s_repository_need_not_hold_python(tmp_path: Path) -> None:
    """setup-python's own cache looks for a requirements file there, and fails without one."""
    steps = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    (setup,) = (step for step in steps if step.get("uses", "").startswith("actions/setup-python"))
    assert "cache" not in setup["with"]
    found = {step.get("id"): step for step in steps}["pip"]
    output = tmp_path / "output"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(output),
        "GITHUB_ACTION_PATH": str(ROOT),
        "EXTRAS": "openvino",
    }
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]]
    subprocess.run(shell, env=environment, cwd=tmp_path, check=True, timeout=60)
    stated = dict(line.split("=", 1) for line in output.read_text().splitlines())
    (kept,) = (step for step in steps if step.get("uses", "").startswith("actions/cache"))
    for place in kept["with"].values():
        assert stated[place.removeprefix("${{ steps.pip.outputs.").removesuffix(" }}")]


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


@pytest.mark.parametrize(("old", "verbs"), [("", ["run"]), ("v1/results.npz", ["run", "compare"])])
def test_the_template_for_gitlab_compares_where_the_last_release_is_named(
    tmp_path: Path, old: str, verbs: list[str]
) -> None:
    job = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())[".yoloquant"]
    seen, out = tmp_path / "seen", tmp_path / "out"
    environment = {
        **os.environ,
        **job["variables"],
        "PATH": stand_in(tmp_path),
        "SEEN": str(seen),
        "CODE": "0",
        "COMPARED": "0",
        "OUTPUT": str(out),
        "RECIPE": "recipe.yaml",
        "OLD": old,
        "COMPARE_ARGUMENTS": "limit=8 gate=mine",
    }
    # As its runner does: line after line, up to the first that fails.
    subprocess.run(["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])], env=environment, check=True, timeout=60)
    words = seen.read_text().splitlines()
    assert [word for word in words if "=" not in word and word != "recipe.yaml"] == verbs
    assert words[:3] == ["run", "recipe.yaml", f"output={out}"]
    if old:
        assert words[4:] == [f"old={old}", f"new={out}/report", "limit=8", "gate=mine", f"output={out}/compare"]
    assert job["artifacts"]["reports"]["junit"] == "$OUTPUT/*/junit.xml", "of both"


def test_the_image_runs_the_demonstration_as_an_ordinary_user_and_without_cuda() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and line[0].isupper()]
    keys = [key for key, _ in words]
    (user,) = (value for key, value in words if key == "USER")
    assert user not in {"root", "0"} and keys.index("USER") < keys.index("ENTRYPOINT")
    assert words[-1] == ["CMD", '["demo"]']
    installs = next(i for i, (key, value) in enumerate(words) if key == "RUN" and value.startswith("pip install"))
    assert any(key == "ENV" and value.endswith("pytorch.org/whl/cpu") for key, value in words[:installs])
