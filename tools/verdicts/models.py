"""Section 2: models that people have. Each is either run as Ultralytics runs it, or refused in a sentence."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from tools.verdicts.bench import Bench, Case, Outcome
from yoloquant.bridge.checkpoint import load_model
from yoloquant.cli.verbs import VERBS
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.graph.traced_model import TracedModel
from yoloquant.io import resource
from yoloquant.quantization.ptq import quantize
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.targets import get
from yoloquant.targets.export import export
from yoloquant.targets.schemes import resolve_schemes

SIDE = 128
WIDTH = 0.125
SLACK = 1e-3
"""Of an output's largest value: folding BatchNorm rounds."""
Change = Callable[[dict[str, Any]], None]


def single_class(bench: Bench) -> Outcome:
    """A model that was trained with single_cls=True on data with six classes."""
    module = copy.deepcopy(load_model(bench.model).module)
    head: Any = module.model[-1]  # type: ignore[index,union-attr]
    for branch in head.cv3:  # what it knows of the first class
        last = branch[-1]
        last.weight, last.bias = torch.nn.Parameter(last.weight[:1]), torch.nn.Parameter(last.bias[:1])
        last.out_channels = 1
    vars(head).update(nc=1, no=4 * head.reg_max + 1)
    vars(module).update(nc=1, names={0: "thing"})
    model = bench.checkpoint("single.pt", module, single_cls=True)
    return bench.validate(
        model=model, exports=bench.export(model, bench.folder / "single"), gate=bench.gate_of_one_class
    )


def some_classes(bench: Bench) -> Outcome:
    """A model that was trained with classes=[0, 2]."""
    model = bench.checkpoint("some.pt", load_model(bench.model).module, classes=[0, 2])
    return bench.validate(model=model)


def grey(bench: Bench) -> Outcome:
    """A model of grey images."""
    module = copy.deepcopy(load_model(bench.model).module)
    first: Any = module.model[0].conv  # type: ignore[index,union-attr]
    first.weight, first.in_channels = torch.nn.Parameter(first.weight.sum(1, keepdim=True)), 1
    return bench.calibrates(bench.checkpoint("grey.pt", module))


def not_finite(bench: Bench) -> Outcome:
    """Activations that overflow while they are observed."""
    module = copy.deepcopy(load_model(bench.model).module)
    for layer in (module.model[3], module.model[5], module.model[7]):  # type: ignore[index,union-attr]
        layer.conv.weight.data.mul_(1e16)  # type: ignore[union-attr,operator]
        layer.bn.running_var.fill_(1.0)  # type: ignore[union-attr,operator]
    return bench.calibrates(bench.checkpoint("infinite.pt", module))


def keypoints(bench: Bench) -> Outcome:
    """Labels of keypoints under a detect model."""
    return bench.validate(data=bench.write_data("keypoints", kpt_shape=[17, 2]))


class _Foreign:
    """Pickles under the name of a class that cannot be imported here."""


def foreign(name: str, file: str = "best.pt") -> Callable[[Bench], Outcome]:
    """A checkpoint whose model is of a class of another project."""

    def act(bench: Bench) -> Outcome:
        path = bench.folder / file
        torch.save({"model": _Foreign(), "train_args": {}}, path)
        own = f"c{_Foreign.__module__}\n{_Foreign.__qualname__}\n".encode()
        module, _, attribute = name.rpartition(".")
        with zipfile.ZipFile(path) as archive:
            content = {entry: archive.read(entry) for entry in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for entry, data in content.items():
                archive.writestr(entry, data.replace(own, f"c{module}\n{attribute}\n".encode()))
        return bench.run("plan", str(path), "scheme=onnxruntime")

    return act


def old_format(bench: Bench) -> Outcome:
    """A healthy checkpoint in the format of PyTorch before 1.6."""
    path = bench.folder / "old.pt"
    content = {"model": load_model(bench.model).module, "train_args": {"imgsz": 160}}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return bench.run("plan", str(path), "scheme=onnxruntime", f"output={bench.folder / 'old.json'}")


def built(name: str, change: Change | None = None, width: float = WIDTH) -> torch.nn.Module:
    """A narrow model of one of Ultralytics' descriptions with random weights that see their input.

    Args:
        name: Stem of the description, for instance ``yolov8-p2``.
        change: Changes the description.
        width: Share of the channels.
    """
    import ultralytics
    from ultralytics.nn.tasks import DetectionModel

    place = Path(ultralytics.__file__).parent / "cfg" / "models"
    content: dict[str, Any] = yaml.safe_load(next(place.rglob(f"{name}.yaml")).read_text(encoding="utf-8"))
    content.update(nc=3, scales={"n": [0.33, width, 1024]}, scale="n")
    if change:
        change(content)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = DetectionModel(content, ch=3, nc=3, verbose=False)
        model.train()
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 0.5
        for _ in range(3):
            model(torch.rand(2, 3, SIDE, SIDE))
    model.names = {i: f"thing {i}" for i in range(3)}
    model.args, model.task = {"imgsz": SIDE, "task": "detect"}, "detect"
    return model.eval()


def like_ultralytics(
    name: str, change: Change | None = None, target: str = "onnxruntime"
) -> Callable[[Bench], Outcome]:
    """Whether the traced network gives what Ultralytics' own gives, and whether it can be quantized and run."""

    def act(bench: Bench) -> Outcome:
        module = built(name, change)
        host = load_model(module)
        graph = TracedModel.of(host, SIDE).graph  # outside of inference mode: calibration needs gradients of this graph
        image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            ours, theirs = graph.module(image), host.module(image)
        ours, theirs = (found[0] if isinstance(found, (tuple, list)) else found for found in (ours, theirs))
        gap = float((ours - theirs).abs().max() / theirs.abs().max())
        options = QuantizeOptions(imgsz=SIDE, calibration=CalibrationOptions(images=8))
        artifact = quantize(module, data=bench.data, schemes=resolve_schemes(target), options=options)
        folder = bench.folder / f"{name}-{target}"
        (exported,) = export(artifact, [get(target)], folder=folder).exports
        runner = get(target).load(exported, 1)
        found = runner(image.numpy())[0]
        runner.close()
        right = gap <= SLACK and found.shape == tuple(theirs.shape) and bool(np.isfinite(found).all())
        return Outcome(0 if right else 1, f"differs from Ultralytics by {gap:.0e}, runs in {target} as INT8")

    return act


def activation(kind: str) -> Change:
    """A description with another activation."""
    return lambda content: content.update(activation=f"torch.nn.{kind}()")


def pooled(content: dict[str, Any]) -> None:
    """A padded average pool in the middle."""
    content["backbone"][4][2:] = ["nn.AvgPool2d", [3, 1, 1]]


def padded_pool(bench: Bench) -> Outcome:
    """An average pool whose padding counts, for OpenVINO."""
    path = bench.checkpoint("pooled.pt", built("yolov8", pooled))
    words = (f"data={bench.data}", "images=8", f"imgsz={SIDE}", "targets=openvino")
    done = bench.run("export", str(path), *words, f"output={bench.folder / 'pooled'}")
    return replace(done, code=-1, text=f"calibrated first\n{done.text}") if "(2 of 8)" in done.text else done


def stride(bench: Bench) -> Outcome:
    """A model of stride 64 and a size that is none of its multiples."""
    return bench.calibrates(bench.checkpoint("p6.pt", built("yolov8-p6")), "imgsz=416")


def rectangle(bench: Bench) -> Outcome:
    """imgsz=height,width together with training."""
    words = (f"data={bench.data}", "targets=onnxruntime", "train=fast", "imgsz=96,160")
    return bench.run("run", f"model={bench.model}", *words, f"output={bench.folder / 'rectangle'}")


def crowded(bench: Bench) -> Outcome:
    """More than 300 objects an image, from an end-to-end head."""
    options = QuantizeOptions(imgsz=SIDE, calibration=CalibrationOptions(images=8), max_det=320)
    module = built("yolo26", width=0.25)
    module.end2end = True  # type: ignore[assignment]
    artifact = quantize(module, data=bench.data, schemes=resolve_schemes("onnxruntime"), options=options)
    (exported,) = export(artifact, [get("onnxruntime")], folder=bench.folder / "crowded").exports
    runner = get("onnxruntime").load(exported, 1)
    count = runner(np.zeros((1, 3, SIDE, SIDE), np.float32))[0].shape[1]
    runner.close()
    return Outcome(0, f"{count} detections of an image where 320 were asked for")


def many_classes(bench: Bench) -> Outcome:
    """Comparing models of 1,203 classes: a good artifact passes, one with two classes swapped does not."""
    from tools.verdicts.drawn import verdicts_of_many_classes

    verdicts: Mapping[str, str] = verdicts_of_many_classes(bench.folder / "many", classes=1203, images=64)
    right = verdicts == {"same": "pass", "swapped": "fail"}
    return Outcome(0 if right else 1, ", ".join(f"{name}: {verdict}" for name, verdict in verdicts.items()))


def help_runs(bench: Bench) -> Outcome:
    """The demo's own files are there, and no example names a data set that is too small to calibrate on."""
    assert resource("datasets", "demo.pt").is_file()
    helps = " ".join(bench.run(verb.name, "--help").text for verb in VERBS)
    words = sorted({word for word in helps.split() if word.startswith("data=coco")})
    small = [word for word in words if "coco8" in word]
    return Outcome(2 if small or not words else 0, f"data sets in the examples: {', '.join(words)}")


_RUNS = r"differs from Ultralytics by \de[-+]\d\d, runs in onnxruntime as INT8"
CASES = (
    Case("single_cls and data of six classes", single_class, 0, "trained on all objects as one class"),
    Case("trained on classes=[0, 2]", some_classes, 0, "trained on classes 0, 2 only"),
    Case("a model of grey images", grey, 2, "takes images of 1 channel; allowed are"),
    Case("infinite activations in calibration", not_finite, 2, "(NaN|infinite)"),
    Case("keypoint labels, a detect model", keypoints, 2, r"describes keypoints \(kpt_shape\)"),
    Case("RT-DETR", foreign("ultralytics.nn.tasks.RTDETRDetectionModel"), 2, "is an RT-DETR model"),
    Case("YOLO-World", foreign("ultralytics.nn.tasks.WorldModel"), 2, "is a YOLO-World model"),
    Case("YOLOE", foreign("ultralytics.nn.tasks.YOLOESegModel"), 2, "is a YOLOE model"),
    Case("YOLO-NAS", foreign("super_gradients.training.models.YoloNAS_S"), 2, "a YOLO-NAS model"),
    Case("YOLOv5's own yolov5n.pt", foreign("models.yolo.Model", "yolov5n.pt"), 2, "old YOLOv5 project"),
    Case("a checkpoint of the old format", old_format, 0, "."),
    Case("a P2 head", like_ultralytics("yolov8-p2"), 0, _RUNS),
    Case("a P6 head", like_ultralytics("yolov8-p6"), 0, _RUNS),
    Case("ghost convolutions", like_ultralytics("yolov8-ghost"), 0, _RUNS),
    Case("ReLU6", like_ultralytics("yolov8", activation("ReLU6")), 0, _RUNS),
    Case("LeakyReLU", like_ultralytics("yolov8", activation("LeakyReLU")), 0, _RUNS),
    Case("Hardswish", like_ultralytics("yolov8", activation("Hardswish")), 0, _RUNS),
    Case("a padded AveragePool", like_ultralytics("yolov8", pooled), 0, _RUNS),
    Case("a padded AveragePool for OpenVINO", padded_pool, 2, "has a padding that counts"),
    Case("stride 64 and imgsz=416", stride, 2, "the nearest to 416 are 384 and 448"),
    Case("imgsz=96,160 with train=", rectangle, 2, "imgsz=96,160 together with training is not supported"),
    Case("more than 300 objects", crowded, 0, "320 detections of an image"),
    Case("1,203 classes", many_classes, 0, "same: pass, swapped: fail"),
    Case("the help's own examples", help_runs, 0, "data sets in the examples"),
)
