"""The examples run as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDS = {"run_an_export.py": "openvino", "quantize_and_export.py": "onnxruntime", "release_gate.py": "onnxruntime"}


def run(code: list[str], folder: Path) -> str:
    """Run Python in a folder of its own and return what it printed."""
    done = subprocess.run([sys.executable, *code], cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_a_script_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "onnx"))
    assert run([str(EXAMPLES / name), str(tmp_path / "out")], tmp_path).strip()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Its cells one after another, as a notebook would, without needing Jupyter."""
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    assert "PASS" in run(["-c", code + "\nprint(result.verdict)"], tmp_path)


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"`{p.name}`" in listed for p in EXAMPLES.iterdir() if p.name != "README.md")
