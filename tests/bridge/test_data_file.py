"""A data yaml that is not there is refused before Ultralytics is imported, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from yoloquant.bridge.data_file import check_data_file
from yoloquant.errors import DataError


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.yaml", r"'missing.yaml' does not exist \(looked in .*\), nor is it among Ultralytics' own"),
        ("none/missing.yml", r"'none/missing.yml' does not exist: there is no folder 'none'"),
        ("../missing.yaml", "does not exist"),
        # Ultralytics has this one, but not there
        ("none/coco8.yaml", "does not exist"),
    ],
)
def test_what_is_nowhere_is_refused(name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=says):
        check_data_file(name)
    with pytest.raises(DataError, match="there is no folder" if "none/" in name else "looked in"):
        check_data_file(str(tmp_path / name))


@pytest.mark.parametrize(
    "name", ["own.yaml", "coco8.yaml", "datasets/coco8.yaml", "folder", "annotations.json", "https://x/a.yaml"]
)
def test_what_may_be_there_passes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").touch()
    check_data_file(name)


def test_command_answers_without_heavy_imports(tmp_path: Path) -> None:
    (tmp_path / "m.pt").touch()
    code = (
        "import sys; from yoloquant.cli.main import main; code = main(['quantize', 'm.pt', 'data=missing.yaml']);"
        "print(code, 'torch' in sys.modules, 'ultralytics' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["2", "False", "False"] and "data yaml 'missing.yaml' does not exist" in done.stderr
