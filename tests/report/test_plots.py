"""Plots: drawn for what was measured, with the page's colours, and without touching matplotlib's global state."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from yoloquant.evaluation.results import TargetResult, ValidationResult
from yoloquant.report.plots import drop_plot, scatter_plot
from yoloquant.types import Verdict


@pytest.mark.parametrize("plot", [drop_plot, scatter_plot])
def test_svg_is_well_formed_and_follows_the_page(plot: object, result: ValidationResult) -> None:
    assert callable(plot)
    svg = plot(result)
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg") and "viewBox" in root.attrib and "width" not in root.attrib
    for variable in ("--ink", "--pass", "--fail", "--inconclusive", "--line"):
        assert f"var({variable})" in svg
    assert re.findall(r"#0\d0\d0\d", svg) == []
    assert "#ffffff" not in svg
    assert "<!--" not in svg


def test_every_measured_target_is_drawn(result: ValidationResult) -> None:
    three = drop_plot(result)
    two = drop_plot(replace(result, targets=result.targets[1:]))
    assert three.count("var(--pass)") > 0
    assert two.count("var(--pass)") == 0


def test_the_limit_is_drawn_only_where_the_gate_has_one(result: ValidationResult) -> None:
    free = replace(
        result, targets=tuple(replace(t, checks=()) for t in result.targets if t.verdict is not Verdict.FAIL)
    )
    assert "var(--fail)" not in drop_plot(free)
    bound = replace(result, targets=result.targets[:1])
    assert "var(--fail)" in drop_plot(bound)


def test_ids_do_not_clash(result: ValidationResult) -> None:
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (drop_plot(result), scatter_plot(result))]
    assert ids[0] and ids[1] and not ids[0] & ids[1]


def test_nothing_measured_draws_nothing(result: ValidationResult) -> None:
    broken = replace(result, targets=(TargetResult("x", "", "", Verdict.ERROR),))
    assert drop_plot(broken) == scatter_plot(broken) == ""


def test_unlabelled_run_plots_fidelity(unlabelled: ValidationResult) -> None:
    assert drop_plot(unlabelled) and scatter_plot(unlabelled)


@pytest.mark.parametrize("name", ["猫猫", "$\\frac$", "a\x00b", "x" * 300, "<b>&", ""])
def test_any_name_can_be_drawn_without_warning(result: ValidationResult, name: str) -> None:
    odd = replace(result, targets=tuple(replace(target, target=name) for target in result.targets))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ET.fromstring(drop_plot(odd))
        ET.fromstring(scatter_plot(odd))


def test_many_targets_in_one_spot(result: ValidationResult) -> None:
    crowd = replace(result, targets=tuple(replace(result.targets[0], target=f"target{i}") for i in range(12)))
    ET.fromstring(scatter_plot(crowd))


def test_global_state_is_left_alone(result: ValidationResult, tmp_path: Path) -> None:
    import matplotlib

    before = matplotlib.rcParams.copy()
    assert drop_plot(result)
    assert scatter_plot(result)
    assert dict(dict.items(before)) == dict(dict.items(matplotlib.rcParams))  # raw: reading would resolve the backend
    code = (
        "import sys, yoloquant.report.plots as p; p._svg(p._figure(2), 'x'); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
