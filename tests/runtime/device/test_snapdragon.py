"""Chips by name, and the machines that can simulate them."""

from __future__ import annotations

import platform
import re
import sys

import pytest

from yoloquant.runtime.device.snapdragon import SOCS, find_soc, is_simulated, why_not_here
from yoloquant.runtime.errors import UsageError


@pytest.mark.parametrize("name", ["8gen3", "8Gen3", "Snapdragon 8 Gen 3", "sm8650", "snapdragon_8gen3"])
def test_a_chip_has_the_names_that_people_use(name: str) -> None:
    assert find_soc(name) is SOCS["8gen3"] and find_soc(name).model == 57


def test_no_name_is_the_usual_chip() -> None:
    assert find_soc("") is next(iter(SOCS.values()))


def test_numbers_and_names_are_unique() -> None:
    for attribute in ("name", "title", "chip", "model"):
        assert len({getattr(soc, attribute) for soc in SOCS.values()}) == len(SOCS)


@pytest.mark.parametrize("name", ["9gen9", "8gen33", "57"])
def test_an_unknown_chip_lists_the_known(name: str) -> None:
    with pytest.raises(UsageError, match=rf"no Snapdragon '{name}'.*allowed are 8gen2, .*8elite-gen5"):
        find_soc(name)


@pytest.mark.parametrize(
    ("system", "machine", "library", "said"),
    [
        ("linux", "x86_64", ("glibc", "2.35"), ""),
        ("linux", "x86_64", ("glibc", "2.36"), ""),
        ("linux", "x86_64", ("glibc", "2.31"), "this machine has glibc 2.31"),
        ("linux", "x86_64", ("", ""), "this machine has no glibc"),
        ("linux", "aarch64", ("glibc", "2.36"), "this is .* on aarch64"),
        ("darwin", "x86_64", ("", ""), "this is .* on x86_64"),
    ],
)
def test_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, library: tuple[str, str], said: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: library)
    assert is_simulated() == (machine == "x86_64")
    found = why_not_here()
    if not said:
        assert found == ""
        return
    assert re.search(said, found) and "Linux on x86-64 with glibc 2.35 or newer" in found
