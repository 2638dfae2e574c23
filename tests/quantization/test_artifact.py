"""The artifact is an ordinary checkpoint: plain Ultralytics reads it, and nothing of it is lost."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_models import checkpoint, sample_images, tiny_artifact, tiny_host, write_images
from full_disk import largest_file

from yoloquant import api
from yoloquant.bridge.checkpoint import STATE_KEY
from yoloquant.errors import ArtifactError, OutputError, PlanError
from yoloquant.quantization.artifact import STATE_VERSION, Artifact, versions
from yoloquant.quantization.scheme import PORTABLE
from yoloquant.targets import get, names

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'yoloquant':
            raise ImportError('yoloquant is not installed here')

sys.meta_path.insert(0, Blocker())
import numpy as np, torch
from ultralytics import YOLO
from ultralytics.nn.tasks import torch_safe_load

path, image, result = sys.argv[1:]
model = YOLO(path)
x = torch.from_numpy(np.load(image))
with torch.inference_mode():
    output = model.model.float().eval()(x)
np.save(result, (output[0] if isinstance(output, (tuple, list)) else output).numpy())
assert model.names == {0: 'cat', 1: 'dog', 2: 'bird'}, model.names
assert model.task == 'detect'
model.predict(np.zeros((48, 64, 3), np.uint8), imgsz=64, verbose=False, save=False)
assert 'yoloquant' in torch_safe_load(path, safe_only=True)[0]
assert not any(m.split('.')[0] == 'yoloquant' for m in sys.modules)
"""


def artifact() -> Artifact:
    """The tiny artifact with bias corrections."""
    bias = {"portable": {"model.0.conv": np.linspace(-1, 1, 8, dtype=np.float32) / 3}}
    return replace(tiny_artifact(), bias=bias, provenance={"calibration": {"images": 16}, "x": [1, 2.5, None]})


@pytest.mark.slow
def test_plain_ultralytics_loads_the_float_model(tmp_path: Path) -> None:
    path = artifact().save(tmp_path / "model_int8.pt")
    (image,) = sample_images(1, seed=5)
    np.save(tmp_path / "image.npy", image)
    command = [sys.executable, "-c", BLOCKED, str(path), str(tmp_path / "image.npy"), str(tmp_path / "result.npy")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    with torch.inference_mode():
        expected = tiny_host().module(torch.from_numpy(image))[0].numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "result.npy"), expected)


@pytest.mark.parametrize("exact_half", [False, True])
def test_float16_only_where_nothing_is_lost(tmp_path: Path, exact_half: bool) -> None:
    module = copy.deepcopy(tiny_host().module)
    host = replace(tiny_host(), module=module.half().float() if exact_half else module)
    path = replace(artifact(), traced=replace(artifact().traced, model=host)).save(tmp_path / "a.pt")
    stored = torch.load(path, weights_only=False)["model"]
    assert next(stored.parameters()).dtype == (torch.float16 if exact_half else torch.float32)
    loaded = Artifact.load(path).model.module.state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in host.module.state_dict().items())


def test_nothing_is_lost(tmp_path: Path) -> None:
    before = artifact()
    path = before.save(tmp_path / "a.pt")
    after = Artifact.load(path)
    assert after.plans == before.plans and list(after.plans) == list(before.plans)
    assert {k: p.digest() for k, p in after.plans.items()} == {k: p.digest() for k, p in before.plans.items()}
    assert after.info == before.info and after.provenance == before.provenance
    assert after.model.sha256 == before.model.sha256, "the hash is that of the model it was made from"
    np.testing.assert_array_equal(after.bias["portable"]["model.0.conv"], before.bias["portable"]["model.0.conv"])
    for (name, a), b in zip(
        before.model.module.state_dict().items(), after.model.module.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    again = Artifact.load(after.save(tmp_path / "b.pt"))
    assert again.plans == before.plans


def test_saving_changes_nothing_in_memory(tmp_path: Path) -> None:
    made = artifact()
    made.save(tmp_path / "a.pt")
    assert next(made.model.module.parameters()).dtype == torch.float32 and not list(tmp_path.glob(".*"))


def test_the_state_is_plain_data() -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(type(k) is str and plain(v) for k, v in value.items())
        if type(value) is list:
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float, bool)

    state = artifact().state()
    assert plain(state) and json.loads(json.dumps(state)) == state


@pytest.mark.parametrize("name", ["model.onnx", "model", "model.PTH"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"must end in \.pt"):
        artifact().save(tmp_path / name)


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        artifact().save(tmp_path / "file" / "a.pt")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(OutputError):
        artifact().save(tmp_path / "folder.pt")


def test_full_disk(tmp_path: Path) -> None:
    made = artifact()
    made.save(tmp_path / "a.pt")
    before = (tmp_path / "a.pt").read_bytes()
    with largest_file(len(before) // 2), pytest.raises(OutputError, match="cannot be written"):
        made.save(tmp_path / "a.pt")
    assert (tmp_path / "a.pt").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_plain_checkpoint_has_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run yoloquant\.quantize first"):
        Artifact.load(checkpoint(tmp_path / "plain.pt"))


def _plan(text: str, **changes: Any) -> str:
    return json.dumps({**json.loads(text), **changes})


DAMAGE = {
    "no version": lambda s: s.pop("version"),
    "version": lambda s: s.update(version=STATE_VERSION + 1),
    "no plans": lambda s: s.pop("plans"),
    "plans": lambda s: s.update(plans=[1]),
    "plan": lambda s: s["plans"].update(portable="{"),
    "plan version": lambda s: s["plans"].update(portable=_plan(s["plans"]["portable"], version=99)),
    "plan points": lambda s: s["plans"].update(portable=_plan(s["plans"]["portable"], points=[{"name": "x"}])),
    "plan null": lambda s: s["plans"].update(portable="null"),
    "plan type": lambda s: s["plans"].update(portable=5),
    "imgsz": lambda s: s.update(imgsz="large"),
    "imgsz stride": lambda s: s.update(imgsz=[65, 65]),
    "bias": lambda s: s.update(bias={"portable": {"model.0.conv": ["a"]}}),
    "provenance": lambda s: s.update(provenance=3),
    "no hash": lambda s: s.pop("sha256"),
    "extra point key": lambda s: s["plans"].update(
        portable=s["plans"]["portable"].replace('"kind":', '"new":1,"kind":', 1)
    ),
    "scale": lambda s: s["plans"].update(portable=s["plans"]["portable"].replace('"scale":', '"scale":-', 1)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_state(tmp_path: Path, damage: str) -> None:
    state = artifact().state()
    DAMAGE[damage](state)
    path = checkpoint(tmp_path / "bad.pt", **{STATE_KEY: state})
    with pytest.raises(ArtifactError, match=r"bad\.pt"):
        Artifact.load(path)


@pytest.mark.parametrize("scheme", ["portable", *names()])
def test_every_scheme_finds_a_plan(scheme: str) -> None:
    rules = PORTABLE if scheme == "portable" else get(scheme).scheme
    made = tiny_artifact()
    assert made.plan_for(rules) is made.plans[rules.name]
    alone = replace(made, plans={"portable": made.plans["portable"]})
    adapted = alone.plan_for(rules)
    assert adapted.scheme == rules.name and adapted.calibrated
    known = made.plans["portable"].by_name
    assert all(p.params == known[p.name].params for p in adapted.points), "ranges are the portable plan's, exactly"


def test_no_plan_and_missing_ranges() -> None:
    made = tiny_artifact()
    empty = replace(made, plans={})
    with pytest.raises(PlanError, match=r"run yoloquant\.quantize first"):
        empty.plan_for(PORTABLE)
    tensorrt = get("tensorrt").scheme
    narrow = replace(made, plans={"tensorrt": made.plans["tensorrt"]})
    assert narrow.plan_for(tensorrt).calibrated
    with pytest.raises(PlanError, match=r"has no range for .* points that 'portable' needs"):
        narrow.plan_for(PORTABLE)


def test_bias_follows_the_plan_it_was_made_for() -> None:
    made = artifact()
    assert set(made.bias_for(PORTABLE)) == {"model.0.conv"}
    assert made.bias_for(get("openvino").scheme) == {}
    fallback = replace(made, plans={"portable": made.plans["portable"]})
    assert set(fallback.bias_for(get("openvino").scheme)) == {"model.0.conv"}


def test_metadata_names_model_versions_and_provenance() -> None:
    data = artifact().metadata()
    assert data["model_sha256"] == tiny_host().sha256 and data["calibration"] == {"images": 16}
    assert {"yoloquant", "python", "torch", "ultralytics"} <= set(data["versions"]) == set(versions())


def test_metadata_of_a_saved_checkpoint_is_that_of_the_model_it_was_made_from(tmp_path: Path) -> None:
    """So that what ``run`` exported, and a validation noted of, is found by its bytes when it is bundled later."""
    made = api.quantize(
        checkpoint(tmp_path / "m.pt"), data=write_images(tmp_path / "set"), scheme="openvino", imgsz=64, cache=False
    )
    path = tmp_path / "out" / "m_int8.pt"
    assert made.metadata()["model"] == "m.pt"
    assert Artifact.load(made.save(path)).metadata() == made.saved_as(path).metadata()
