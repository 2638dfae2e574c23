"""Nothing is ever half-written, whatever goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from full_disk import largest_file

from yoloquant.data.dataset import load_yaml
from yoloquant.errors import DataError, OutputError, UsageError, YoloquantError
from yoloquant.evaluation.gate import load_gate
from yoloquant.io import atomic_path, output_folder, parse_yaml, remove_unused
from yoloquant.recipe import load_recipe


def entries(folder: Path) -> set[str]:
    """Everything in a folder, hidden files included."""
    return {p.name for p in folder.iterdir()}


def test_new_file_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists(), "nothing appears before the block ends"
        assert temporary.suffix == path.suffix and temporary.name == path.name
    assert path.read_text() == "whole" and entries(path.parent) == {"file.txt"}


def test_unused_folders_go_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for folder in ("old", "old/inside", "used", "used/empty", "x/y/z"):
        output_folder(tmp_path / folder)
    (tmp_path / "used" / "file").touch()
    remove_unused()
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == {"old", "used", os.path.join("used", "file")}
    (tmp_path / "used" / "file").unlink()
    remove_unused()
    assert (tmp_path / "used").is_dir(), "each is looked at once"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError, MemoryError])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_block_changes_nothing(tmp_path: Path, error: type[BaseException], existing: bool) -> None:
    path = tmp_path / "file.txt"
    if existing:
        path.write_text("before")
    with pytest.raises(OutputError if error is OSError else error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert entries(tmp_path) == ({"file.txt"} if existing else set())
    assert not existing or path.read_text() == "before"


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")
    with atomic_path(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after" and entries(tmp_path) == {"file.txt"}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.bin").write_text("old")
    with atomic_path(path) as temporary:
        temporary.mkdir()
        (temporary / "new.bin").write_text("new")
        assert (path / "old.bin").exists()
    assert entries(path) == {"new.bin"} and entries(tmp_path) == {"model"}


@pytest.mark.parametrize("error", [OSError("disk trouble"), KeyboardInterrupt()])
def test_a_folder_survives_a_failed_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.bin").write_text("old")

    def fail(self: Path, target: Path) -> Path:
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)), atomic_path(path) as temporary:
        temporary.mkdir()
    assert (path / "old.bin").read_text() == "old" and entries(tmp_path) == {"model"}


def test_a_folder_does_not_replace_a_file_nor_a_file_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "file") as temporary:
        temporary.mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "folder") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "file").read_text() == "kept" and entries(tmp_path / "folder") == {"kept"}
    assert entries(tmp_path) == {"file", "folder"}


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        output_folder(tmp_path / "taken")
    for path in (tmp_path / "taken" / "below", tmp_path / "taken" / "below" / "deeper"):
        with pytest.raises(OutputError, match="cannot be written"):
            output_folder(path)
        with pytest.raises(OutputError, match="cannot be written"), atomic_path(path):
            pytest.fail("the block must not start")
    assert (tmp_path / "taken").read_text() == "a file"


def test_output_folder_is_created_and_left_empty(tmp_path: Path) -> None:
    assert output_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert output_folder(str(tmp_path / "a" / "b")).is_dir() and not entries(tmp_path / "a" / "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        output_folder(folder)
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(folder / "x"):
        pytest.fail("the block must not start")


def test_read_only_file_system() -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        output_folder("/proc/yoloquant")


def test_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    with largest_file(16), pytest.raises(OutputError, match="cannot be written"):
        output_folder(tmp_path / "out")
    with largest_file(16), pytest.raises(OutputError, match="cannot be written"), atomic_path(path) as temporary:
        temporary.write_bytes(b"x" * 1000)
    assert not path.exists() and not any(p.name.startswith(".file") for p in tmp_path.iterdir())


def test_a_full_disk_is_told_of_the_place_that_was_asked_for(tmp_path: Path) -> None:
    """What writes a folder writes its files one by one, to a place that nobody has ever seen."""
    path = tmp_path / "folder"
    with largest_file(16), pytest.raises(OutputError) as told, atomic_path(path) as temporary:
        temporary.mkdir()
        with atomic_path(temporary / "file.bin") as file:
            file.write_bytes(b"x" * 1000)
    assert str(told.value).startswith(f"'{path / 'file.bin'}' cannot be written") and not path.exists()


def test_a_killed_process_leaves_no_file_under_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    code = (
        "import os, signal, sys, pathlib\nfrom yoloquant.io import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as t:\n"
        "    t.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert result.returncode == -signal.SIGKILL and not path.exists()
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_leftovers_of_killed_runs_are_swept_and_those_of_live_ones_are_not(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import os, sys; from pathlib import Path; from yoloquant.io import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as part:\n    part.write_text('half'); os.kill(os.getpid(), 9)"
    )
    final = tmp_path / "model[1].onnx"
    subprocess.run([sys.executable, "-c", program, str(final)], check=False)
    (killed,) = tmp_path.iterdir()
    other = tmp_path / ".another.onnx.0-x"
    other.mkdir()
    with atomic_path(final) as first:
        assert not killed.exists(), "swept by the next run"
        with atomic_path(final) as second:
            second.write_text("second")
        first.write_text("first")
    assert final.read_text() == "first" and sorted(p.name for p in tmp_path.iterdir()) == [other.name, final.name]


def test_room_is_proven(tmp_path: Path) -> None:
    from full_disk import largest_file

    from yoloquant.io import needs_space

    needs_space(tmp_path, 3_000_000)
    with largest_file(2_000_000), pytest.raises(OutputError, match="no room for 3 MB"):
        needs_space(tmp_path, 3_000_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ["name: 2026-13-01", "a: !!int x", "a: !!timestamp x", "a: !!bool maybe", "[" * 2000, "a: [", "{[1]: 2}", "\x00"],
)
def test_whatever_yaml_raises_is_one_error_of_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as told:
        parse_yaml(text)
    assert "\n" not in str(told.value)
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    reads: dict[Any, type[YoloquantError]] = {load_gate: UsageError, load_recipe: UsageError, load_yaml: DataError}
    for read, error in reads.items():
        with pytest.raises(error, match=r"gate\.yaml"):
            read(path)
