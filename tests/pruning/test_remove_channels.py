"""What removing channels leaves is an ordinary model, and Ultralytics' own verbs treat it as one."""

from __future__ import annotations

import copy
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pruning_cases import Choice, case, case_of, edited, image, plan_for, predictions, raw, whole_plan
from tiny_models import tiny_yolo

from yoloquant.data.demo import generator
from yoloquant.errors import PruneError
from yoloquant.pruning.metadata import RECORD, unpruned_cost
from yoloquant.pruning.plan import PrunePlan
from yoloquant.pruning.remove_channels import pruned, remove_channels


@lru_cache(maxsize=1)
def product() -> tuple[Any, PrunePlan]:
    """A pruned model and its plan; tests copy it."""
    found = case("yolo11")
    plan = plan_for(found, Choice(0.4, 4))
    return pruned(found.module, plan), plan


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A pruned model in a file that Ultralytics wrote."""
    yolo = tiny_yolo()
    yolo.model = copy.deepcopy(product()[0])
    path = tmp_path / "pruned.pt"
    yolo.save(str(path))
    return path


def test_the_model_that_was_given_stays_as_it_was() -> None:
    found = case("yolo11")
    before = predictions(found.module, image())
    pruned(found.module, plan_for(found, Choice(0.3, 2)))
    assert not hasattr(found.module, RECORD)
    assert "unpruned_backbone" not in found.module.yaml
    assert torch.equal(predictions(found.module, image()), before)


def test_channels_that_were_followed_are_not_followed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = case("yolo11")
    module, plan = product()
    monkeypatch.setattr("yoloquant.pruning.remove_channels.trace_channels", None)  # calling it raises
    again = pruned(found.module, plan, groups=found.groups)
    assert getattr(again, RECORD) == getattr(module, RECORD)
    for (name, a), (_, b) in zip(again.state_dict().items(), module.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_it_tells_what_was_removed() -> None:
    module, plan = product()
    (record,) = getattr(module, RECORD)
    assert record["macs"] == [plan.before.macs, plan.after.macs]
    assert record["groups"] == {e.group: [e.before, e.after] for e in plan.entries if e.after < e.before}
    assert unpruned_cost(module) == plan.before
    assert unpruned_cost(case("yolo11").module) is None


def test_a_channel_that_is_kept_keeps_its_weights() -> None:
    found = case("yolo11")
    name = "model.0"
    group = found.groups[name]
    plan = edited(whole_plan(found), **{name: group.count - 2})
    module = copy.deepcopy(found.module)
    remove_channels(module, found.network, plan.dropped(found.groups))
    assert torch.equal(module.model[0].conv.weight, found.module.model[0].conv.weight[2:])
    assert torch.equal(module.model[0].bn.running_var, found.module.model[0].bn.running_var[2:])
    assert torch.equal(module.model[1].conv.weight, found.module.model[1].conv.weight[:, 2:])


def test_area_attention_keeps_its_temperature() -> None:
    """Its forward divides by the root of what a head has left; queries make up for it."""
    found = case("yolo12")
    block = next(n for n, m in found.module.named_modules() if type(m).__name__ == "AAttn")
    group = found.groups[f"{block}.qkv"]
    plan = edited(whole_plan(found), **{group.name: group.count // 2})
    module = copy.deepcopy(found.module)
    remove_channels(module, found.network, plan.dropped(found.groups))
    old, new = found.module.get_submodule(block), module.get_submodule(block)
    assert (old.head_dim, new.head_dim) == (group.count, group.count // 2)
    assert new.all_head_dim == new.num_heads * new.head_dim
    scale = new.qkv.bn.weight.view(new.num_heads, 3, new.head_dim)
    was = old.qkv.bn.weight.view(old.num_heads, 3, old.head_dim)[:, :, old.head_dim - new.head_dim :]
    torch.testing.assert_close(scale[:, 0], was[:, 0] * (new.head_dim / old.head_dim) ** 0.5)
    assert torch.equal(scale[:, 1:], was[:, 1:])


def test_a_block_that_holds_sizes_in_its_code_is_refused() -> None:
    class Rigid(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[1] != 8:
                raise ValueError("eight channels are needed")
            return x

    layers = [torch.nn.Conv2d(3, 8, 1), Rigid(), torch.nn.Conv2d(8, 4, 1)]

    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Sequential(*layers)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x)  # type: ignore[no-any-return]

    found = case_of(Holder().eval())
    plan = edited(whole_plan(found), **{"model.0": 4})
    with pytest.raises(PruneError, match=r"does not run after pruning \(eight channels are needed\).*ignored="):
        pruned(found.module, plan)


def test_a_pruned_checkpoint_loads_without_this_package(checkpoint: Path) -> None:
    code = (
        "import sys, torch; sys.modules['yoloquant'] = None; from ultralytics import YOLO; "
        f"y = YOLO({str(checkpoint)!r}); print(sum(p.numel() for p in y.model.parameters()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) == product()[1].after.parameters


def test_plain_training_is_refused_with_the_reason(checkpoint: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    data = generator().write_demo_set(tmp_path / "demo", train=4, val=2, imgsz=64)
    with pytest.raises(Exception, match=r"this model is pruned.*yoloquant train"):
        YOLO(str(checkpoint)).train(data=str(data), epochs=1, imgsz=64, project=str(tmp_path), workers=0, plots=False)


def test_ultralytics_predicts(checkpoint: Path) -> None:
    from ultralytics import YOLO

    yolo = YOLO(str(checkpoint))
    expected = predictions(copy.deepcopy(product()[0]).half().float(), image())
    assert torch.equal(predictions(yolo.model.float(), image()), expected)
    picture = (image()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    (result,) = yolo.predict(picture, imgsz=64, conf=0.001, verbose=False)
    assert len(result.boxes)


@pytest.mark.slow
def test_ultralytics_validates_and_exports(checkpoint: Path, tmp_path: Path) -> None:
    import onnxruntime
    from ultralytics import YOLO

    data = generator().write_demo_set(tmp_path / "demo", train=4, val=2, imgsz=64)
    found = YOLO(str(checkpoint)).val(data=str(data), imgsz=64, project=str(tmp_path), workers=0, plots=False)
    assert 0 <= found.box.map <= 1
    path = YOLO(str(checkpoint)).export(format="onnx", imgsz=64, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: image().numpy()})
    expected = predictions(copy.deepcopy(product()[0]).half().float(), image())
    np.testing.assert_allclose(answer, expected.numpy(), atol=2e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), [("yolo12", "detect"), ("yolov10n", "detect"), ("yolov8", "segment")])
def test_others_export_too(family: str, task: str, tmp_path: Path) -> None:
    import onnxruntime

    found = case(family, task)
    yolo = tiny_yolo(family, task)
    yolo.model = pruned(found.module, plan_for(found, Choice(0.4, 4)))
    path = tmp_path / "pruned.pt"
    yolo.save(str(path))
    from ultralytics import YOLO

    loaded = YOLO(str(path))
    expected = predictions(copy.deepcopy(loaded.model).float().eval(), image())
    session = onnxruntime.InferenceSession(loaded.export(format="onnx", imgsz=64), providers=["CPUExecutionProvider"])
    answer = session.run(None, {session.get_inputs()[0].name: image().numpy()})[0]
    assert answer.shape == tuple(expected.shape)
    if family != "yolov10n":  # its detections are ranked: near ties may change places
        np.testing.assert_allclose(answer, expected.numpy(), atol=5e-3, rtol=1e-3)
    assert raw(yolo.model, image())
