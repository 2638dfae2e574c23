"""The store: entries are whole or gone, it keeps to its size, and several processes may share it."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

from yoloquant import cache
from yoloquant.cache import ENTRY, Store, copy_files, ours, surroundings
from yoloquant.errors import ArtifactError
from yoloquant.io import cache_folder

KEY = {"of": Path("a"), "options": (1, 2.5, None)}


def write(store: Store, key: object = KEY, text: str = "whole") -> None:
    store.write("thing", {"key": key}, lambda folder: (folder / "a.txt").write_text(text))


def read(store: Store, key: object = KEY) -> str | None:
    return store.read("thing", {"key": key}, lambda folder: (folder / "a.txt").read_text())


def entries(store: Store) -> list[Path]:
    return sorted(store.folder.glob("thing-*"))


def test_what_is_written_is_read_under_its_own_key_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    assert read(store) is None and not store.folder.exists(), "reading makes nothing"
    write(store)
    assert read(store) == "whole" and read(Store(store.folder)) == "whole"
    assert read(store, {**KEY, "of": "b"}) is None
    assert store.read("other", {"key": KEY}, lambda folder: "found") is None
    write(store, text="later")
    assert read(store) == "whole", "the first one stays: equal keys have equal results"
    assert [p.name for p in store.folder.iterdir() if p.is_dir()] == [entries(store)[0].name], "nothing is left beside"


def test_code_packages_and_environment_are_part_of_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    write(store)
    for name, value in (("_code", lambda package: "1"), ("_installed", lambda: "2"), ("_processor", lambda: ["3"])):
        with monkeypatch.context() as changed:
            surroundings.cache_clear()
            changed.setattr(cache, name, value)
            assert read(store) is None, name
    surroundings.cache_clear()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "x")
    assert read(store) is None
    monkeypatch.undo()
    surroundings.cache_clear()
    assert read(store) == "whole"


def test_what_was_imported_before_is_no_part_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that is taken up again draws plots before its first key, and scikit-learn for those sets variables."""
    store = Store(tmp_path / "store")
    for name in ("KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK", "TF_CPP_MIN_LOG_LEVEL", "TORCH_CPP_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    surroundings.cache_clear()
    write(store)
    (tmp_path / "setuptools" / "_vendor" / "wheel-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "setuptools" / "_vendor")])
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    surroundings.cache_clear()
    assert read(store) == "whole"
    monkeypatch.setenv("KMP_BLOCKTIME", "0")
    surroundings.cache_clear()
    assert read(store) is None
    monkeypatch.undo()
    surroundings.cache_clear()


def test_the_hash_of_the_code_sees_a_changed_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").write_text("x = 1\n")
    before = cache._code(tmp_path)
    (tmp_path / "a" / "b.py").write_text("x = 2\n")
    assert cache._code(tmp_path) != before


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "added", "no list", "list", "format", "linked"])
def test_a_damaged_entry_is_removed_and_made_anew(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path / "store")
    write(store)
    (place,) = entries(store)
    file, listing = place / "a.txt", place / ENTRY
    if damage == "changed":
        file.write_text("WHOLE")
    elif damage == "cut":
        file.write_text("who")
    elif damage == "missing":
        file.unlink()
    elif damage == "added":
        (place / "b.txt").write_text("more")
    elif damage == "no list":
        listing.unlink()
    elif damage == "list":
        listing.write_text("[1")
    elif damage == "format":
        listing.write_text(json.dumps({**json.loads(listing.read_text()), "format": 0}))
    else:
        (tmp_path / "elsewhere").write_text("whole")
        file.unlink()
        file.symlink_to(tmp_path / "elsewhere")
    assert read(store) is None and not place.exists()
    write(store)
    assert read(store) == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyError, OSError, ArtifactError])
def test_an_entry_that_its_reader_refuses_is_made_anew(tmp_path: Path, error: type[Exception]) -> None:
    store = Store(tmp_path)
    write(store)

    def refuse(folder: Path) -> str:
        raise error("no")

    assert store.read("thing", {"key": KEY}, refuse) is None and not entries(store)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path, most=10_000)
    for index in range(3):
        write(store, index, "x" * 3000)
        os.utime(max(entries(store), key=lambda p: (p / ENTRY).stat().st_mtime) / ENTRY, (index, index))
    assert read(store, 0) is not None, "used: now it is the newest"
    write(store, 3, "x" * 3000)
    assert [read(store, k) is not None for k in range(4)] == [True, False, False, True], "down to four fifths"
    write(store, 4, "x" * 20_000)
    assert read(store, 4) is None and read(store, 3) is not None, "what is larger than all goes nowhere"


def test_what_killed_processes_left_goes_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / ".thing-1.m.5-x", tmp_path / ".thing-2.m.5-x"
    for folder in (old, new):
        folder.mkdir()
        (folder / "half").write_text("half")
    os.utime(old, (time.time() - 90_000,) * 2)
    write(Store(tmp_path))
    assert not old.exists() and new.exists()


def test_a_store_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file")
    write(store)
    assert read(store) is None and "cannot be written, so nothing is kept there" in caplog.text


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for error in (ArtifactError, OSError):  # a result was made already: it must not be lost for its copy
        store.write("thing", {"key": KEY}, lambda folder, e=error: _half(folder, e))  # type: ignore[misc]
    with pytest.raises(KeyboardInterrupt):
        store.write("thing", {"key": KEY}, lambda folder: _half(folder, KeyboardInterrupt))
    assert read(store) is None and not [p for p in tmp_path.iterdir() if p.is_dir()]


def _half(folder: Path, error: type[BaseException]) -> None:
    (folder / "a.txt").write_text("half")
    raise error("no more")


def _worker(folder: Path, start: float, results: multiprocessing.Queue[bool]) -> None:
    store = Store(folder, most=4000)
    time.sleep(max(start - time.time(), 0))
    sound = True
    for index in range(30):
        key = index % 5
        found = read(store, key)
        sound &= found in (None, str(key) * 900)
        write(store, key, str(key) * 900)
    results.put(sound)


def test_processes_share_a_store_that_is_too_small_for_them(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[bool] = context.Queue()
    workers = [context.Process(target=_worker, args=(tmp_path, time.time() + 0.2, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert all(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sum(p.stat().st_size for p in tmp_path.rglob("a.txt")) <= 4000


def test_the_option_names_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOQUANT_CACHE", str(tmp_path))
    own, given = Store.of(True), Store.of(str(tmp_path / "mine"))
    assert own is not None and own.folder == tmp_path / "results" and Store.of(False) is None
    assert given is not None and given.folder == tmp_path / "mine"
    monkeypatch.setenv("YOLOQUANT_CACHE", "false")
    assert Store.of(True) is None and cache_folder().name == "yoloquant", "switched off for everything, copies aside"
    assert Store.of(str(tmp_path)) is not None, "what is named is meant"


def test_files_are_copied_without_the_entrys_own(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in (ENTRY, "x", "b/y"):
        (tmp_path / "a" / name).write_text(name)
    copy_files(tmp_path / "a", tmp_path / "c")
    assert sorted(p.relative_to(tmp_path / "c").as_posix() for p in (tmp_path / "c").rglob("*")) == ["b", "b/y", "x"]


def test_ours_is_what_the_hash_of_the_code_covers() -> None:
    assert ours(Store) and ours(copy_files)
    assert not ours(Path) and not ours(read) and not ours(lambda: 0)


def test_a_key_that_no_text_tells_apart_keeps_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "new")
    write(store, object())
    assert read(store, object()) is None and not store.folder.exists()
    assert "no plain data" in caplog.text
