"""The composite action's own steps on the demo model, run as GitHub runs them: in plain shell, with its variables."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from github_api import Api, serve

from yoloquant.data.demo import prepare
from yoloquant.report.pull_request import MARK

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
WORDS = {0: "notice", 1: "error", 3: "warning"}
CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


@dataclass(frozen=True)
class Ran:
    """What a run of every step left: exit codes by step, what was said, the job's summary and the action's outputs."""

    codes: dict[str, int]
    said: str
    summary: str
    outputs: str


def run_action(folder: Path, api: Api, steps: tuple[str, ...], **inputs: str) -> Ran:
    """Run steps that are scripts, by their names; each asks to run even where the one before failed."""
    folder.mkdir(exist_ok=True)
    event = folder / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 7}}))
    values = {name: str(each.get("default", "")) for name, each in ACTION["inputs"].items()} | inputs
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_API_URL": f"http://127.0.0.1:{api.server_port}",
        # As between two steps of one job: what the first run made is taken again by the second.
        "YOLOQUANT_CACHE": str(folder.parent / "cache"),
    }
    codes, said = {}, ""
    for step in ACTION["runs"]["steps"]:
        if step.get("name") not in steps:
            continue
        own = {
            key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: values[m[1]], v) for key, v in step["env"].items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],  # as GitHub starts 'shell: bash'
            env={**environment, **own},
            capture_output=True,
            text=True,
            timeout=900,
        )
        codes[step["name"]], said = done.returncode, said + done.stdout + done.stderr
    return Ran(codes, said, (folder / "summary").read_text(), (folder / "output").read_text())


@pytest.mark.nightly
def test_the_steps_judge_the_demo_model(tmp_path: Path) -> None:
    demo = prepare(tmp_path / "demo")
    inputs = {
        "arguments": f"model={demo['model']} data={demo['data']} imgsz=320 images=8 targets=onnxruntime limit=32 "
        "gate=accuracy latency=false memory=false bootstrap=200 threads=1",
        "output": str(tmp_path / "out"),
        "token": "secret",
    }
    with serve([{"id": 0, "body": "a person's words"}]) as api:
        ran = run_action(tmp_path / "job", api, ("Run", "Comment"), **inputs)
        report = tmp_path / "out" / "report"
        code = CODES[json.loads((report / "report.json").read_text())["verdict"]]
        assert ran.codes == {"Run": code, "Comment": 0}, ran.said
        assert ran.outputs == f"code={code}\n" and f"::{WORDS[code]} title=yoloquant::" in ran.said
        assert ran.summary == (report / "report.md").read_text() and "onnxruntime" in ran.summary
        mark = MARK.format(name="report")
        assert [c["body"] for c in api.comments[1:]] == [f"{mark}\n{ran.summary}"]
        # A later push compares with the results that the first one left.
        last = shutil.copy(report / "results.npz", tmp_path / "last.npz")
        inputs |= {"old": str(last), "compare-arguments": "limit=32 latency=false bootstrap=200 threads=1"}
        again = run_action(tmp_path / "job again", api, ("Run",), **inputs)
        folder = tmp_path / "out" / "compare"
        compared = json.loads((folder / "report.json").read_text())
        assert compared["verdict"] == "pass" and "title=yoloquant compare::" in again.said
        # The same artifact again; the job's code is the comparison's where the run passes.
        assert again.codes == {"Run": code} and compared["targets"][0]["comparison"]["fidelity"]["value"] > 0.99
        told = (folder / "report.md").read_text()
        assert "no difference beyond" in told
        assert again.summary == (report / "report.md").read_text() + told
        # It writes into the same comment, and the comparison into one of its own.
        (report / "report.md").write_text("again")
        assert run_action(tmp_path / "job", api, ("Comment",), **inputs).codes == {"Comment": 0}
        assert [c["body"] for c in api.comments[1:]] == [f"{mark}\nagain", f"{MARK.format(name='compare')}\n{told}"]
        assert set(api.tokens) == {"Bearer secret"} and api.comments[0]["body"] == "a person's words"
