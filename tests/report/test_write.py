"""Writing: all four files, each whole or not at all, and clear errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from full_disk import largest_file

from yoloquant.errors import OutputError, UsageError
from yoloquant.evaluation.results import ValidationResult
from yoloquant.report import from_json, report_or_error, write_report


def test_writes_four_files_and_nothing_else(result: ValidationResult, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    paths = write_report(result, folder)
    assert sorted(folder.iterdir()) == sorted([paths.json, paths.junit, paths.markdown, paths.html])
    assert from_json(paths.json.read_text(encoding="utf-8")) == result
    assert paths.html.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert paths.junit.stat().st_mode & 0o444 == 0o444 & ~_umask()


def test_replaces_an_older_report(result: ValidationResult, tmp_path: Path) -> None:
    first = write_report(result, tmp_path / "r")
    first.markdown.write_text("old")
    assert write_report(result, tmp_path / "r").markdown.read_text(encoding="utf-8") != "old"


def test_a_file_in_the_folders_place(result: ValidationResult, tmp_path: Path) -> None:
    (tmp_path / "r").write_text("")
    with pytest.raises(OutputError, match=r"'.*r': .*name a folder"):
        write_report(result, tmp_path / "r")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which even root cannot write")
def test_a_folder_that_cannot_be_made(result: ValidationResult) -> None:
    with pytest.raises(OutputError):
        write_report(result, Path("/proc/self/report"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder(result: ValidationResult, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_report(result, folder)


def test_running_out_of_room_keeps_the_old_report(result: ValidationResult, tmp_path: Path) -> None:
    paths = write_report(result, tmp_path / "r")
    before = {path: path.read_bytes() for path in paths.json.parent.iterdir()}
    with largest_file(1024), pytest.raises(OutputError):
        write_report(result, tmp_path / "r")
    assert {path: path.read_bytes() for path in paths.json.parent.iterdir()} == before


def test_an_interrupt_leaves_no_temporary_file(
    result: ValidationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_report(result, tmp_path / "r")
    assert list((tmp_path / "r").iterdir()) == []


def test_importing_the_package_loads_no_plotting() -> None:
    code = (
        "import sys, yoloquant.report;"
        "print([m for m in ('matplotlib', 'jinja2', 'pydantic', 'PIL', 'numpy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_old_report_goes_before_work_starts_and_an_error_is_left(tmp_path: Path, result: ValidationResult) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "keep.txt").write_text("mine")
    write_report(result, folder)
    with pytest.raises(ValueError, match="no such <gate>"), report_or_error(folder):
        assert [p.name for p in folder.iterdir()] == ["keep.txt"]
        raise ValueError("no such <gate>")
    assert sorted(p.name for p in folder.iterdir()) == ["junit.xml", "keep.txt"]
    root = ET.parse(folder / "junit.xml").getroot()
    assert (root.get("tests"), root.get("errors"), root.get("failures")) == ("1", "1", "0")
    error = root.find(".//error")
    assert error is not None and error.get("message") == "no such <gate>"
    with report_or_error(folder) as write:
        assert write(result).junit == folder / "junit.xml"
    assert len(list(folder.iterdir())) == 5


def test_an_interruption_leaves_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), report_or_error(tmp_path):
        raise KeyboardInterrupt
    assert "KeyboardInterrupt" in (tmp_path / "junit.xml").read_text()
    assert "interrupted before there was a verdict" in (tmp_path / "junit.xml").read_text()


@pytest.mark.parametrize("named", ["results.npz", "report.json", ".", "../report/results.npz"])
def test_an_old_report_that_is_to_be_read_stays(tmp_path: Path, result: ValidationResult, named: str) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "results.npz").write_bytes(b"kept")
    write_report(result, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused = pytest.raises(UsageError, match="whose place the new one takes; name another folder")
    with refused, report_or_error(folder, (None, folder / named)):
        pytest.fail("the work began")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and len(before) == 5


def test_what_is_read_elsewhere_takes_nothing_from_a_report(tmp_path: Path, result: ValidationResult) -> None:
    other, folder = tmp_path / "last", tmp_path / "report"
    other.mkdir()
    (other / "results.npz").write_bytes(b"kept")
    reads = (other, other / "results.npz", "https://example.org/report/results.npz", folder, None)
    with report_or_error(folder, reads) as write:  # a folder of exports may hold the report, if it held none before
        write(result)
    assert (folder / "report.json").is_file() and (other / "results.npz").read_bytes() == b"kept"
