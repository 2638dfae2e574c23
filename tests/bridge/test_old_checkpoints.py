"""Checkpoints in the layouts that Ultralytics 8.0 to 8.4 wrote, and files that only look like checkpoints."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from core_models import checkpoint, tiny_host
from torch import nn

from yoloquant.bridge import safe_unpickler
from yoloquant.bridge.checkpoint import load_model
from yoloquant.errors import ModelError
from yoloquant.types import Task

# Where releases kept what they pickled, read from their wheels: name today -> name then.
LAYOUTS: dict[str, dict[str, str]] = {
    "8.0.0": {
        r"ultralytics\.nn\.modules\.\w+": "ultralytics.nn.modules",
        r"ultralytics\.utils\.loss\nv8\w+": "ultralytics.yolo.v8.detect.train\nLoss",
        r"ultralytics\.utils\.tal": "ultralytics.yolo.utils.tal",
        r"ultralytics\.utils\.loss": "ultralytics.yolo.utils.loss",
        r"ultralytics\.data\.augment": "ultralytics.yolo.data.dataloaders.v5augmentations",
        r"ultralytics\.utils\n": "ultralytics.yolo.utils\n",
    },
    "8.0.100": {
        r"ultralytics\.utils\.": "ultralytics.yolo.utils.",
        r"ultralytics\.data\.augment": "ultralytics.yolo.data.augment",
        r"ultralytics\.utils\n": "ultralytics.yolo.utils\n",
    },
    "8.0.200": {},
    "8.3.0, its loss gone since": {r"ultralytics\.utils\.loss\nv8\w+": "ultralytics.utils.loss\nv8LossOfThatTime"},
}


def rewritten(path: Path, layout: dict[str, str]) -> Path:
    """The same checkpoint with the names of another release in its pickle."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    for name in content:
        if name.endswith("data.pkl"):
            for now, then in layout.items():
                content[name] = re.sub(rb"(?<=c)" + now.encode(), then.encode(), content[name])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def old_checkpoint(path: Path, task: str, layout: dict[str, str]) -> tuple[Path, Any]:
    """A checkpoint with the loss, the options and the transforms of its time; and the model that it holds."""
    from tiny_models import tiny_yolo
    from torchvision.transforms import Compose, Normalize
    from ultralytics.data.augment import CenterCrop, ToTensor
    from ultralytics.utils import IterableSimpleNamespace

    model = tiny_yolo("yolov8", task).model
    model.args = IterableSimpleNamespace(imgsz=64, task=task, box=7.5, cls=0.5, dfl=1.5, pose=12.0, kobj=1.0,
                                         overlap_mask=True)  # fmt: skip
    model.criterion = model.init_criterion()
    if task == "classify":
        model.transforms = Compose([CenterCrop(64), ToTensor(), Normalize((0.0,) * 3, (1.0,) * 3)])
    torch.save({"model": model, "ema": None, "train_args": {"imgsz": 64}, "version": "8.0.0"}, path)
    return rewritten(path, layout), model.float().eval()


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_yesterdays_checkpoints_open_without_running_code(tmp_path: Path, task: str, layout: str) -> None:
    path, model = old_checkpoint(tmp_path / "best.pt", task, LAYOUTS[layout])
    host = load_model(path)
    assert host.task is Task(task) and not host.unsafe and not hasattr(host.module, "criterion")
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        theirs, ours = model(image), host.module(image)
    while isinstance(theirs, (tuple, list)):
        theirs, ours = theirs[0], ours[0]
    assert torch.equal(theirs, ours)
    if task == "classify":
        kinds = [f"{type(t).__module__}.{type(t).__name__}" for t in host.module.transforms.transforms]
        assert kinds[:2] == ["ultralytics.data.augment.CenterCrop", "ultralytics.data.augment.ToTensor"]
    torch.save(host.module, tmp_path / "again.pt")  # what is derived from it can be stored


def test_the_format_of_before_torch_1_6_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    module = tiny_host().module
    content = {"model": module, "train_args": {"imgsz": 64}}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    host = load_model(path)
    assert host.imgsz == (64, 64) and not host.unsafe
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, host.module.state_dict()[name])


@pytest.mark.parametrize("name", ["yolov5n.pt", "it's mine.pt"])
def test_the_named_file_is_read_and_no_other(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.utils import downloads

    monkeypatch.setattr(downloads, "attempt_download_asset", lambda *a, **k: pytest.fail("the host looked for a file"))
    assert load_model(checkpoint(tmp_path / name)).source == str(tmp_path / name)


class _Foreign:
    """Pickles under the name of a class that cannot be imported here."""

    def __init__(self, name: str) -> None:
        self.name = name


def foreign_checkpoint(path: Path, name: str) -> Path:
    """A checkpoint whose model is of a class of another project."""
    module, _, attribute = name.rpartition(".")
    torch.save({"model": _Foreign("x"), "train_args": {}}, path)
    own = f"c{_Foreign.__module__}\n{_Foreign.__qualname__}\n".encode()
    with zipfile.ZipFile(path) as archive:
        content = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in content.items():
            archive.writestr(entry, data.replace(own, f"c{module}\n{attribute}\n".encode()))
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models.yolo.DetectionModel", "old YOLOv5 project"),
        ("models.yolo.Model", "old YOLOv5 project"),
        ("super_gradients.training.models.YoloNAS_S", "YOLO-NAS"),
        ("yolov6.models.yolo.Model", "YOLOv6"),
        ("ultralytics.nn.tasks.RTDETRDetectionModel", "RT-DETR"),
        ("ultralytics.nn.tasks.WorldModel", "YOLO-World"),
        ("ultralytics.nn.tasks.YOLOESegModel", "YOLOE"),
        ("ultralytics.models.sam.modules.sam.SAM2Model", "Segment Anything"),
    ],
)
@pytest.mark.parametrize("unsafe", [False, True])
def test_other_models_are_refused_by_what_they_hold(tmp_path: Path, name: str, message: str, unsafe: bool) -> None:
    path = foreign_checkpoint(tmp_path / "yolov5n.pt", name)
    with pytest.raises(ModelError, match=message) as error:
        load_model(path, allow_unsafe=unsafe)
    assert "allowed are detect" in str(error.value) and "\n" not in str(error.value)


def test_a_live_model_of_another_kind_is_refused() -> None:
    kind = type("RTDETRDetectionModel", (nn.Module,), {})
    module = kind()
    module.model = nn.ModuleList([nn.Linear(1, 1)])
    with pytest.raises(ModelError, match="RT-DETR"):
        load_model(module)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"no model at all", "it is a text"),
        (b"PK\x03\x04 cut short", "cut short"),
        (b"\x00\x01\x02\xff" * 90, "another kind"),
        (b"", "is empty"),
    ],
)
def test_files_that_are_no_checkpoint_say_what_they_are(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "best.pt")


def test_a_torchscript_export_says_so(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "export.pt"))
    with pytest.raises(ModelError, match="TorchScript export"):
        load_model(tmp_path / "export.pt")


def test_a_layer_that_this_release_lacks_is_named(tmp_path: Path) -> None:
    path = foreign_checkpoint(tmp_path / "new.pt", "torch.nn.modules.conv.ConvOfTomorrow")
    with pytest.raises(ModelError, match=r"needs torch\.nn\.modules\.conv\.ConvOfTomorrow"):
        load_model(path)


def read(content: bytes) -> Any:
    return safe_unpickler.SafeUnpickler(io.BytesIO(content)).load()


HARMFUL = {
    "a constructor that evaluates text": b"cultralytics.nn.tasks\nDetectionModel\n(S'yolo.yaml'\ntR.",
    "a constructor in the protocol of old": b"(S'yolo.yaml'\niultralytics.nn.tasks\nDetectionModel\n.",
    "a function of the system": b"cposix\nsystem\n(S'true'\ntR.",
    "evaluation": b"cbuiltins\neval\n(S'1'\ntR.",
    "a method that calls": b"cbuiltins\ngetattr\n(ctorch.nn.modules.module\nModule\nS'apply'\ntR.",
    "a private attribute": b"cbuiltins\ngetattr\n(ctorch.nn.modules.module\nModule\nS'__init__'\ntR.",
    "an import": b"cimportlib\nimport_module\n(S'antigravity'\ntR.",
    "slots": b"\x80\x02ctorch.nn.modules.linear\nIdentity\n)\x81N}S'end2end'\nI01\ns\x86b.",
    "an extension": b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("what", HARMFUL)
def test_nothing_but_the_list_is_called(what: str) -> None:
    with pytest.raises(pickle.UnpicklingError):
        read(HARMFUL[what])


def test_classes_of_ultralytics_become_records() -> None:
    found = read(b"\x80\x02cultralytics.utils.anything\nKind\n)\x81}X\x01\x00\x00\x00aK\x05sb.")
    assert found.kind == "ultralytics.utils.anything.Kind" and found.state == {"a": 5}
    called = read(b"cultralytics.hub.auth\nrun\n(S'x'\ntR.")
    assert called.arguments == ("x",), "recorded, not called"
