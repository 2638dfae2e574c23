"""The results file: what is finished survives anything, and nothing wrong is taken over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yoloquant.errors import OutputError, UsageError
from yoloquant.sensitivity.journal import Journal, JournalEntry, key_of

WHAT = {"model": "abc", "options": {"ratios": [0.25, 0.1 + 0.2]}}
ENTRIES = [
    JournalEntry("", None, 0.0, ""),
    JournalEntry("model.0", 1 / 3, 0.1 + 0.2, "mask"),
    JournalEntry("model.1", 0.5, None, "cut"),
]


def filled(folder: Path) -> Journal:
    journal = Journal(folder, WHAT)
    for entry in ENTRIES:
        journal.add(entry)
    return journal


def test_a_second_start_finds_every_bit(tmp_path: Path) -> None:
    filled(tmp_path)
    again = Journal(tmp_path, dict(reversed(WHAT.items())))
    assert len(again) == 3
    assert [again.get(e.name, e.ratio) for e in ENTRIES] == ENTRIES
    assert again.get("model.0", 0.25) is None


def test_other_models_data_or_options_have_their_own_file(tmp_path: Path) -> None:
    first = filled(tmp_path)
    other = Journal(tmp_path, {**WHAT, "model": "abd"})
    assert len(other) == 0 and other.path != first.path
    assert key_of(WHAT) != key_of({**WHAT, "options": {"ratios": [0.25]}})


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_that_was_cut_off_costs_only_itself(tmp_path: Path, cut: int) -> None:
    path = filled(tmp_path).path
    assert path is not None
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(tmp_path, WHAT)
    assert len(again) == 2 and again.get("model.1", 0.5) is None
    again.add(ENTRIES[2])
    assert len(Journal(tmp_path, WHAT)) == 3


@pytest.mark.parametrize("kept", [0, 7])
def test_a_file_without_its_first_line_starts_anew(tmp_path: Path, kept: int) -> None:
    path = filled(tmp_path).path
    assert path is not None
    path.write_bytes(path.read_bytes()[:kept])
    assert len(Journal(tmp_path, WHAT)) == 0
    assert len(filled(tmp_path)) == 3 and len(Journal(tmp_path, WHAT)) == 3


@pytest.mark.parametrize(
    "line, text",
    [
        (0, "no json"),
        (0, json.dumps({"format": 1, "key": "other"})),
        (0, json.dumps([1])),
        (2, "{"),
        (2, json.dumps({"name": "model.0", "ratio": "half", "score": 1, "how": ""})),
        (2, json.dumps({"name": "model.0"})),
        (2, "[" * 100_000),
    ],
)
def test_damage_is_an_error_that_names_the_line(tmp_path: Path, line: int, text: str) -> None:
    path = filled(tmp_path).path
    assert path is not None
    lines = path.read_text().splitlines()
    lines[line] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match=f"damaged in line {line + 1}.*delete it"):
        Journal(tmp_path, WHAT)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, WHAT)
    journal.add(ENTRIES[1])
    assert journal.get("model.0", 1 / 3) == ENTRIES[1] and not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        Journal(tmp_path / "taken", WHAT)
