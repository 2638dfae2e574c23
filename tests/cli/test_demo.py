"""The demonstration is a recipe like anybody's, judged on accuracy alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from yoloquant.bridge.checkpoint import load_model
from yoloquant.cli.commands import demo as command
from yoloquant.cli.commands.demo import OUTPUT, DemoCall
from yoloquant.cli.main import main
from yoloquant.data import demo
from yoloquant.evaluation.gate import load_gates
from yoloquant.recipe import Recipe


@pytest.mark.parametrize(("task", "columns"), [("detect", 5), ("obb", 9)])
def test_every_model_comes_with_labels_of_its_task(
    task: str, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "IMAGES", 1)
    prepared = demo.prepare(tmp_path, task)
    assert load_model(prepared["model"]).task.value == task
    lines = (tmp_path / "data" / "labels" / "val" / "val_00000.txt").read_text().splitlines()
    assert lines and all(len(line.split()) == columns for line in lines)


def test_the_demonstration_is_judged_on_accuracy_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Recipe] = []

    def whole_job(recipe: Recipe, inconclusive: int) -> int:
        seen.append(recipe)
        return inconclusive

    monkeypatch.setattr(command, "whole_job", whole_job)
    monkeypatch.setattr(demo, "IMAGES", 2)
    assert main(["demo", "targets=onnxruntime", f"output={tmp_path / 'demo'}"]) == 3
    (recipe,) = seen
    (gate,) = load_gates(recipe.validation.gate)
    assert gate.name == "accuracy" and "latency_ratio" not in gate.limits_for("onnxruntime")
    assert Path(recipe.data).is_file() and recipe.output == str(tmp_path / "demo" / "exports")


def test_tasks_have_folders_of_their_own() -> None:
    """One demonstration would replace the other's exports, and be scored on its images."""
    folders = [DemoCall(task=task).folder for task in demo.DEMONSTRATIONS]  # type: ignore[arg-type]
    assert len(set(folders)) == len(folders) and DemoCall().folder == Path(OUTPUT)
    assert DemoCall(task="obb", output="mine").folder == Path("mine")
