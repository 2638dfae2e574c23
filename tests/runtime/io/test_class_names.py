from __future__ import annotations

from pathlib import Path

import pytest

from yoloquant.runtime.errors import DataError
from yoloquant.runtime.io.class_names import read_labels


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("l.txt", "cat\ndog\n\ntwo words\n", ("cat", "dog", "two words")),
        ("l.txt", "0  cat\n2: bird\n1  two words\n", ("cat", "two words", "bird")),
        ("l.txt", "\ufeff日本\r\nHund\r\nüx\r\n", ("日本", "Hund", "üx")),
        ("l.txt", "3 wheels\n4 wheels\n5 wheels\n", ("3 wheels", "4 wheels", "5 wheels")),
        ("l.json", '["a", "b", 3]', ("a", "b", "3")),
    ],
)
def test_names(tmp_path: Path, name: str, text: str, names: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name, 3) == names


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("l.txt", b"cat\n", "has 1 names, but the model has 2"),
        ("l.json", b'{"0": "cat"}', "no list of names"),
        ("l.json", b"[", "cannot be read"),
        ("l.txt", b"\xff\xfe\x00", "cannot be read"),
        ("", b"", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_labels(tmp_path / name, 2)
