"""Loading models: what can be read is read safely, everything else gets a clear error before any work."""

from __future__ import annotations

import copy
import math
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from core_models import checkpoint, family_model, tiny_host
from tiny_models import tiny_yolo
from torch import nn

from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.exportable import exportable
from yoloquant.bridge.host_model import head_note, model_info
from yoloquant.bridge.input_size import MAX_IMGSZ, check_imgsz, square_size
from yoloquant.errors import ModelError, UsageError
from yoloquant.runtime.core.folder_check import file_sha256
from yoloquant.types import Task


def test_a_checkpoint(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "best.pt")
    host = load_model(path)
    assert (host.task, host.names, host.stride, host.imgsz) == (Task.DETECT, ("cat", "dog", "bird"), 16, (64, 64))
    assert host.source == str(path) and host.sha256 == file_sha256(path) and not host.unsafe and not host.state
    assert not host.module.training and all(p.dtype == torch.float32 for p in host.module.parameters())
    assert load_model(str(path)).sha256 == host.sha256


@pytest.mark.parametrize("kind", ["module", "yolo"])
def test_a_live_model_is_left_as_it_was(kind: str) -> None:
    from ultralytics import YOLO

    live: Any = copy.deepcopy(tiny_host().module).half().train()
    if kind == "yolo":
        yolo = YOLO("yolo11n.yaml", task="detect")
        yolo.model, live = live, yolo
    module = live.model if kind == "yolo" else live
    before = {k: v.clone() for k, v in module.state_dict().items()}
    flags = {n: dict(vars(m)) for n, m in module.named_modules()}
    host = load_model(live)
    info = model_info(host, (64, 64))
    exported = exportable(host, info)
    with torch.no_grad():
        exported(torch.zeros(1, 3, 64, 64))
    assert module.training and all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(v.dtype == before[k].dtype for k, v in module.state_dict().items())
    for name, layer in module.named_modules():
        assert vars(layer).keys() == flags[name].keys(), name
        assert getattr(layer, "inplace", None) == flags[name].get("inplace", getattr(layer, "inplace", None)), name
    assert any(isinstance(m, nn.BatchNorm2d) for m in host.module.modules()), "the host's own copy is not fused"
    assert not any(isinstance(m, nn.BatchNorm2d) for m in exported.modules())


def test_the_hash_depends_on_the_weights_alone() -> None:
    a, b = copy.deepcopy(tiny_host().module), copy.deepcopy(tiny_host().module)
    assert load_model(a).sha256 == load_model(b).sha256
    with torch.no_grad():
        next(b.parameters()).add_(1e-3)
    assert load_model(a).sha256 != load_model(b).sha256


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = os.urandom(64)
    path.write_bytes(content)


DAMAGE = {
    "truncated": _truncate,
    "flipped bytes": _flip,
    "empty": lambda p: p.write_bytes(b""),
    "random": lambda p: p.write_bytes(os.urandom(5000)),
    "text": lambda p: p.write_text("a web page that says 404"),
    "one byte": lambda p: p.write_bytes(b"\x80"),
    "bare pickle": lambda p: p.write_bytes(pickle.dumps({"model": 1})),
    "empty zip": lambda p: zipfile.ZipFile(p, "w").close(),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("unsafe", [False, True])
def test_damaged_files(tmp_path: Path, damage: str, unsafe: bool) -> None:
    path = checkpoint(tmp_path / "bad.pt")
    DAMAGE[damage](path)
    with pytest.raises(ModelError, match=r"bad\.pt"):
        load_model(path, allow_unsafe=unsafe)


@pytest.mark.parametrize("unbuilt", [{}, {"_parameters": {}, "_buffers": {}, "_modules": {"conv": "text"}}])
def test_a_layer_that_was_never_built_is_damage(tmp_path: Path, unbuilt: dict[str, object]) -> None:
    yolo = tiny_yolo()
    state = vars(yolo.model.model[1])
    state.clear()
    state.update(unbuilt)
    path = tmp_path / "bad.pt"
    torch.save({"model": yolo.model}, path)
    with pytest.raises(ModelError, match=r"bad\.pt' is damaged \(a layer in it was never built"):
        load_model(path)


def test_missing_files(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ModelError, match="does not exist"):
            load_model(path)
    for text in ("", "  "):
        with pytest.raises(ModelError, match="model is empty"):
            load_model(text)


@pytest.mark.parametrize("name", ["model.onnx", "model.engine", "model.tflite", "model", "model.yaml"])
def test_other_formats(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=r"allowed is a PyTorch checkpoint"):
        load_model(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"a": torch.zeros(1)}},
        {"weights": torch.zeros(1)},
        {},
        [1, 2],
        torch.zeros(3),
        {"model": None, "ema": None},
        {"model": nn.Linear(1, 1)},
        {"model": nn.Sequential(nn.Linear(1, 1))},
    ],
    ids=["state dict", "tensor", "nothing", "list", "bare tensor", "none", "other module", "sequential"],
)
def test_torch_files_without_a_yolo(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"other\.pt"):
        load_model(tmp_path / "other.pt")


@pytest.mark.parametrize("model", [None, 5, {"model": 1}, nn.Linear(2, 2), object(), "onnx"])
def test_objects_that_are_no_model(model: Any, tmp_path: Path) -> None:
    from ultralytics import YOLO

    if model == "onnx":
        (tmp_path / "a.onnx").write_bytes(b"x")
        model = YOLO(tmp_path / "a.onnx", task="detect")
    with pytest.raises(ModelError):
        load_model(model)


def test_unknown_task() -> None:
    module = copy.deepcopy(tiny_host().module)
    module.task = "juggle"
    with pytest.raises(ModelError, match=r"task 'juggle'; allowed are detect, segment"):
        load_model(module)


def test_the_task_of_a_model_that_does_not_say(tmp_path: Path) -> None:
    from ultralytics.nn.modules import head

    from yoloquant.bridge.checkpoint import _guess_task

    for kind, task in (("Detect", "detect"), ("v10Detect", "detect"), ("Segment", "segment"), ("Pose", "pose"),
                       ("OBB", "obb"), ("Classify", "classify")):  # fmt: skip
        kinds = [getattr(head, kind), type("Mine", (getattr(head, kind),), {})]
        kinds += [getattr(head, f"{kind}26")] if hasattr(head, f"{kind}26") else []
        assert {_guess_task(k.__new__(k)) for k in kinds} == {task}
    module = copy.deepcopy(tiny_host().module)
    vars(module).pop("task", None)
    assert load_model(checkpoint(tmp_path / "a.pt", module)).task is Task.DETECT
    module.model[-1] = nn.Conv2d(1, 1, 1)
    with pytest.raises(ModelError, match="task 'Conv2d'"):
        load_model(module)


@pytest.mark.parametrize("where", ["conv.weight", "running_var", "running_mean"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_numbers(where: str, value: float) -> None:
    module = copy.deepcopy(tiny_host().module)
    name, tensor = next((n, t) for n, t in module.state_dict().items() if n.endswith(where))
    tensor.view(-1)[0] = value
    with pytest.raises(ModelError, match="NaN or infinite") as error:
        load_model(module)
    assert name in str(error.value)


class _Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    path = checkpoint(tmp_path / "harmful.pt", train_args={"imgsz": 64, "x": _Harmful(proof)})
    with pytest.raises(ModelError, match="allow_unsafe=true"):
        load_model(path)
    assert not proof.exists(), "the file's code ran"


def test_unsafe_reading_is_opt_in_and_remembered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    proof = tmp_path / "ran"
    path = checkpoint(tmp_path / "odd.pt", extra=_Harmful(proof))
    host = load_model(path, allow_unsafe=True)
    assert host.unsafe and proof.exists() and "runs code" in caplog.text


@pytest.mark.parametrize("imgsz", [100, "640", None, ..., [64, 96]])
def test_a_strange_training_size_does_not_lock_the_model(tmp_path: Path, imgsz: Any) -> None:
    args = {"task": "detect"} if imgsz is ... else {"imgsz": imgsz, "task": "detect"}
    host = load_model(checkpoint(tmp_path / "a.pt", train_args=args))
    assert host.imgsz in (None, (640, 640), (64, 96))
    assert (host.imgsz is None) == (imgsz in (100, None, ...))


@pytest.mark.parametrize("args", [None, ..., [], "text"])
def test_missing_training_arguments(tmp_path: Path, args: Any) -> None:
    assert load_model(checkpoint(tmp_path / "a.pt", train_args=args)).imgsz is None


@pytest.mark.parametrize("state", ["text", [1], 5])
def test_a_foreign_state_is_refused(tmp_path: Path, state: Any) -> None:
    from yoloquant.errors import YoloquantError

    with pytest.raises(YoloquantError):
        load_model(checkpoint(tmp_path / "a.pt", yoloquant=state))


@pytest.mark.parametrize(
    ("given", "expected"),
    [(64, (64, 64)), ([64, 96], (64, 96)), ((32, 64), (32, 64)), (64.0, (64, 64)), ("64", (64, 64)), ([96], (96, 96)),
     (MAX_IMGSZ, (MAX_IMGSZ, MAX_IMGSZ))],
)  # fmt: skip
def test_supported_sizes(given: Any, expected: tuple[int, int]) -> None:
    assert check_imgsz(given, 32) == expected


@pytest.mark.parametrize(
    "imgsz",
    [
        0,
        -32,
        33,
        16,
        64.5,
        "big",
        None,
        [],
        [64, 64, 64],
        [64, 65],
        MAX_IMGSZ + 32,
        math.nan,
        math.inf,
        {},
        [None],
        "6,4",
    ],
)
def test_unsupported_sizes(imgsz: Any) -> None:
    with pytest.raises(UsageError, match="multiple of 32"):
        check_imgsz(imgsz, 32)


def test_model_info() -> None:
    info = model_info(tiny_host(), (64, 96))
    assert info.strides == (8, 16) and info.reg_max == 16 and not info.end2end and info.kpt_shape is None
    assert info.max_det == min(300, 8 * 12 + 4 * 6) and info.channels == 3


@pytest.mark.parametrize("task", ["detect", "segment", "pose"])
def test_a_model_of_two_heads_says_which_one_ran(task: str) -> None:
    assert head_note(tiny_host()) == ""
    for end2end, note in ((True, "without NMS"), (False, "the one-to-many head ran, with NMS")):
        host = family_model("yolo26", task, end2end)
        assert note in head_note(host) and model_info(host, (64, 64)).end2end is end2end


@pytest.mark.parametrize("before", [None, "true", "0"])
def test_the_environment_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("YOLO_AUTOINSTALL", raising=False)
    if before is not None:
        monkeypatch.setenv("YOLO_AUTOINSTALL", before)
    load_model(checkpoint(tmp_path / "a.pt"))
    assert os.environ.get("YOLO_AUTOINSTALL") == before


@pytest.mark.parametrize(
    ("imgsz", "stride", "message"),
    [(416, 64, "the nearest to 416 are 384 and 448"), ([640, 600], 32, "the nearest to 600 are 576 and 608"),
     (5, 64, "for instance imgsz=640"), (0, 32, "for instance imgsz=640")],
)  # fmt: skip
def test_the_nearest_sizes_are_named(imgsz: Any, stride: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_imgsz(imgsz, stride)


@pytest.mark.parametrize("channels", [1, 4, 10])
def test_models_of_other_channels_are_refused_before_any_work(channels: int) -> None:
    module = copy.deepcopy(tiny_host().module)
    first = module.model[0].conv
    module.model[0].conv = nn.Conv2d(channels, first.out_channels, 3, 2, 1, bias=False)
    with pytest.raises(ModelError, match=f"takes images of {channels} channel"):
        load_model(module)


@pytest.mark.parametrize("imgsz", [None, 64, [64, 64], (64, 64), "64"])
def test_squares_can_be_trained(imgsz: Any) -> None:
    square_size(imgsz)


def test_other_sizes_cannot_be_trained(tmp_path: Path) -> None:
    from yoloquant import train

    for call in (lambda: square_size([384, 640]), lambda: train("none.pt", data="none.yaml", imgsz=(384, 640))):
        with pytest.raises(UsageError, match=r"imgsz=384,640 together with training.*imgsz=640"):
            call()
