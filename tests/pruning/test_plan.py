"""Plans are data: they can be printed, saved, edited and applied, and say what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pruning_cases import Choice, case, data_of, edited, plan_for, whole_plan

from yoloquant.errors import PruneError
from yoloquant.pruning.plan import PrunePlan

FAMILY = "yolov8"


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    plan = plan_for(case(FAMILY))
    loaded = PrunePlan.load(plan.save(tmp_path / "plan.json"))
    assert loaded.entries == plan.entries
    assert (loaded.imgsz, loaded.before, loaded.after) == (plan.imgsz, plan.before, plan.after)
    assert loaded.settings == plan.settings
    assert loaded.dropped(case(FAMILY).groups) == plan.dropped(case(FAMILY).groups)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_the_file_has_a_line_for_every_group(tmp_path: Path) -> None:
    plan = plan_for(case(FAMILY))
    lines = plan.save(tmp_path / "plan.json").read_text(encoding="utf-8").splitlines()
    assert sum('"group"' in line for line in lines) == len(plan.entries)


def test_editing_a_number_keeps_channels(tmp_path: Path) -> None:
    found = case(FAMILY)
    plan = plan_for(found, Choice(0.5))
    path = plan.save(tmp_path / "plan.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    entry = next(e for e in data["groups"] if e["after"] < e["before"])
    entry["after"] = entry["before"]
    path.write_text(json.dumps(data), encoding="utf-8")
    kept = plan.dropped(found.groups) - PrunePlan.load(path).dropped(found.groups)
    assert kept == {v for v in plan.dropped(found.groups) if found.groups.owner[v].name == entry["group"]}
    assert kept


def test_the_least_important_go_first() -> None:
    found = case(FAMILY)
    plan = whole_plan(found)
    name = found.groups.groups[0].name
    group = found.groups[name]
    gone = edited(plan, **{name: group.count - 1}).dropped(found.groups)
    assert gone == {v for atom in group.atoms for v in atom.labels[: atom.step]}  # whole_plan's order is 0, 1, 2 ...
    assert plan.dropped(found.groups) == frozenset()


def test_it_prints_what_changes() -> None:
    plan = plan_for(case(FAMILY), Choice(0.5))
    text = str(plan)
    changed = [c for c in plan.layers if c.inputs[0] != c.inputs[1] or c.outputs[0] != c.outputs[1]]
    assert text.count("\n") == len(changed) + 2  # a head line, and two lines of sums
    first = next(c for c in changed if c.outputs[0] != c.outputs[1])
    assert f"{first.outputs[0]} -> {first.outputs[1]}" in text
    saving = plan.after.macs / plan.before.macs - 1
    assert f"({saving:+.1%}) at 64x64" in text


@pytest.mark.parametrize("after", [0, -1, 10_000])
def test_a_layer_cannot_be_emptied_or_grow(after: int) -> None:
    found = case(FAMILY)
    plan = edited(plan_for(found), **{found.groups.groups[0].name: after})
    with pytest.raises(PruneError, match=rf"leaves {after} of \d+ units in 'model\.0'; allowed are 1 to"):
        plan.dropped(found.groups)


def test_a_plan_of_another_model_is_refused() -> None:
    with pytest.raises(PruneError, match="made for another model"):
        plan_for(case("yolov8")).dropped(case("yolo11").groups)


def test_a_plan_of_another_width_is_refused() -> None:
    found = case(FAMILY)
    data = data_of(plan_for(found))
    data["groups"][0]["before"] += 1
    with pytest.raises(PruneError, match=r"another model: 'model\.0' has \d+ units"):
        PrunePlan.from_dict(data).dropped(found.groups)


def test_an_order_must_name_every_channel_once() -> None:
    found = case(FAMILY)
    data = data_of(plan_for(found))
    data["groups"][0]["order"][0][0] = data["groups"][0]["order"][0][1]
    with pytest.raises(PruneError, match=r"order of 'model\.0'"):
        PrunePlan.from_dict(data).dropped(found.groups)


def test_a_group_may_be_named_once() -> None:
    found = case(FAMILY)
    data = data_of(plan_for(found))
    data["groups"].append(data["groups"][0])
    with pytest.raises(PruneError, match=r"names 'model\.0' twice"):
        PrunePlan.from_dict(data).dropped(found.groups)


@pytest.mark.parametrize(
    "change",
    [
        {"groups": None},
        {"groups": [{"group": "model.0"}]},
        {"imgsz": [64]},
        {"before": {"macs": 1}},
        {"after": {"macs": float("inf"), "parameters": 1}},
        {"settings": 3},
        {"latency_ms": {"onnx": [1.0]}},
    ],
)
def test_damaged_data_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PruneError, match="this is no pruning plan"):
        PrunePlan.from_dict({**data_of(plan_for(case(FAMILY))), **change})


@pytest.mark.parametrize("data", [None, [], 3, {}, "text"])
def test_other_json_is_refused(data: Any) -> None:
    with pytest.raises(PruneError, match="this is no pruning plan"):
        PrunePlan.from_dict(data)


def test_another_format_is_refused() -> None:
    with pytest.raises(PruneError, match="has format 99; this release reads 1"):
        PrunePlan.from_dict({**data_of(plan_for(case(FAMILY))), "format": 99})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PruneError, match="cannot be read"):
        PrunePlan.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PruneError, match=r"nowhere\.json' cannot be read"):
        PrunePlan.load(tmp_path / "nowhere.json")
