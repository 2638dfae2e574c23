"""Train a checkpoint of the embedded demo from scratch on drawn scenes: writes datasets/demo.pt or demo-obb.pt.

    python tools/train_demo_model.py
    python tools/train_demo_model.py --task obb

The network is Ultralytics' YOLO11 at a scale of its own, small enough for the fp16 checkpoint to ship with the
package. Training and model selection use scenes of another seed than the demo set; the demo's own validation split
is only used for the figure printed at the end. The network of rotated boxes starts from the layers that it shares with
demo.pt, which knows the same shapes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads ruin a shared machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import yaml  # noqa: E402

from datasets.demo import CLASS_NAMES, write_demo_set  # noqa: E402


@dataclass(frozen=True)
class Network:
    """A network of the demo: Ultralytics' YOLO11 for a task, at a scale of its own.

    Attributes:
        source: Ultralytics' description.
        scale: Depth, width and largest number of channels.
        name: Name of the description as it is trained.
        out: Name of the checkpoint.
        imgsz: Side of the scenes in pixels.
        max_bytes: Size of a checkpoint that ships.
        min_map: mAP50-95 below which a checkpoint is refused, unless another one is asked for.
        recipe: What its training sets besides what all have.
        epochs: Passes over the training scenes, unless told otherwise.
        images: Training scenes, unless told otherwise.
        start: Checkpoint in datasets/ whose layers it begins with, where they have the same shape; none if empty.
    """

    source: str
    scale: tuple[float, float, int]
    name: str
    out: str
    imgsz: int
    max_bytes: int
    min_map: float
    recipe: dict[str, float]
    epochs: int
    images: int
    start: str = ""


NETWORKS = {  # all numbers of channels are multiples of 8
    "detect": Network(
        *("yolo11.yaml", (0.5, 0.1875, 682), "yolo11-demo.yaml", "demo.pt", 320, 3_000_000, 0.5, {}),
        *(12, 2400),
    ),
    "obb": Network(
        *("yolo11-obb.yaml", (0.5, 0.1875, 682), "yolo11-demo-obb.yaml", "demo-obb.pt", 224, 3_000_000, 0.3),
        {"degrees": 180.0},
        *(5, 800, "demo.pt"),
    ),
}
# What a checkpoint must not tell: where and in whose repository it was made.
_PATH_ARGUMENTS = ("data", "model", "name", "project", "save_dir", "pretrained", "resume", "cfg", "tracker")


@dataclass(frozen=True)
class Options:
    """The command line."""

    task: str
    out: Path
    work: Path
    images: int
    epochs: int
    batch: int
    seed: int
    threads: int
    min_map: float

    @property
    def network(self) -> Network:
        """What is trained."""
        return NETWORKS[self.task]


def parse_options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(NETWORKS), default="detect", help="which demo")
    parser.add_argument("--out", type=Path, default=None, help="checkpoint to write (default: the demo's in datasets/)")
    parser.add_argument(
        "--work", type=Path, default=None, help="folder for scenes and runs, continued from if interrupted"
    )
    parser.add_argument("--images", type=int, default=None, help="training scenes (default: the network's)")
    parser.add_argument("--epochs", type=int, default=None, help="passes over them (default: the network's)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1, help="seed of scenes and training; 0 is the demo set's own")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--min-map", type=float, default=None, help="refuse a checkpoint with a lower mAP50-95")
    values = vars(parser.parse_args())
    network = NETWORKS[values["task"]]
    values["out"] = values["out"] or ROOT / "datasets" / network.out
    for name in ("min_map", "epochs", "images"):
        values[name] = getattr(network, name) if values[name] is None else values[name]
    if values["seed"] == 0:
        parser.error("--seed 0 would train on scenes of the demo set itself; use another seed")
    values["work"] = values["work"] or Path(tempfile.mkdtemp(prefix="yoloquant-demo-"))
    return Options(**values)


def write_model_yaml(folder: Path, network: Network) -> Path:
    """Write Ultralytics' YOLO11 description with the demo's classes and scale.

    Returns:
        The path of the file.
    """
    import ultralytics

    source = Path(ultralytics.__file__).parent / "cfg" / "models" / "11" / network.source
    description = yaml.safe_load(source.read_text(encoding="utf-8"))
    description["nc"] = len(CLASS_NAMES)
    description["scales"] = {"n": list(network.scale)}
    path = folder / network.name
    path.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return path


def _to_float(value: Any) -> Any:
    """Cast tensors in nested containers to float32."""
    if isinstance(value, torch.Tensor):
        return value.float()
    if isinstance(value, dict):
        return {key: _to_float(item) for key, item in value.items()}
    return type(value)(_to_float(item) for item in value) if isinstance(value, (list, tuple)) else value


def speed_up(model: torch.nn.Module) -> None:
    """Train twice as fast on a CPU: channels-last memory, and bfloat16 layers where the CPU computes in it.

    The loss keeps float32: bfloat16 boxes would be too coarse. The averaged weights that become the checkpoint are
    another copy of the model, so they carry neither the hooks nor the memory format.
    """
    model.to(memory_format=torch.channels_last)
    if not torch.cpu._is_avx512_bf16_supported():
        return
    autocast = torch.autocast("cpu", torch.bfloat16)
    layers = list(model.get_submodule("model").children())

    def enter(module: torch.nn.Module, inputs: Any) -> None:
        autocast.__enter__()  # type: ignore[no-untyped-call,unused-ignore]

    def leave(module: torch.nn.Module, inputs: Any, outputs: Any) -> Any:
        autocast.__exit__(None, None, None)
        return _to_float(outputs)

    layers[0].register_forward_pre_hook(enter)
    layers[-1].register_forward_hook(leave)


def train(options: Options) -> Path:
    """Train, and return the path of the best checkpoint."""
    from ultralytics import YOLO

    scenes = {
        "train": options.images,
        "val": options.images // 12,
        "imgsz": options.network.imgsz,
        "seed": options.seed,
    }
    data = write_demo_set(options.work / "scenes", rotated=options.task == "obb", **scenes)
    print(f"scenes ready in {data.parent}", flush=True)
    started = options.work / "run" / "weights" / "last.pt"  # of a training that was interrupted
    model = YOLO(started if started.is_file() else write_model_yaml(options.work, options.network))
    if options.network.start and not started.is_file():
        model.load(ROOT / "datasets" / options.network.start)

    def on_pretrain_routine_end(trainer: Any) -> None:
        speed_up(trainer.model)
        torch.set_num_threads(options.threads)

    model.add_callback("on_pretrain_routine_end", on_pretrain_routine_end)
    if started.is_file():
        model.train(resume=True, device="cpu")
        return Path(model.trainer.best)
    model.train(
        data=str(data),
        imgsz=options.network.imgsz,
        epochs=options.epochs,
        batch=options.batch,
        nbs=options.batch,
        device="cpu",
        seed=options.seed,
        workers=0,  # what Ultralytics uses on a CPU in any case
        pretrained=bool(options.network.start),
        optimizer="AdamW",
        lr0=0.0015,
        lrf=0.02,
        cos_lr=True,
        warmup_epochs=1.0,
        mosaic=1.0,
        close_mosaic=max(1, options.epochs // 4),
        scale=0.4,
        erasing=0.0,
        cache="ram",
        plots=False,
        amp=False,
        project=str(options.work),
        name="run",
        exist_ok=True,
        **{"degrees": 0.0, **options.network.recipe},
    )
    return Path(model.trainer.best)


def _clean_arguments(arguments: Any, name: str) -> dict[str, Any]:
    cleaned = dict(arguments) if isinstance(arguments, dict) else dict(vars(arguments))
    for key in _PATH_ARGUMENTS:
        cleaned.pop(key, None)
    return {**cleaned, "model": name, "data": "demo.yaml"}


def strings_in(value: Any) -> Iterator[str]:
    """All strings in nested dictionaries and sequences."""
    if isinstance(value, (str, Path)):
        yield str(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings_in(key)
            yield from strings_in(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from strings_in(item)


def clean_checkpoint(source: Path, out: Path, network: Network) -> None:
    """Rewrite a trained checkpoint without machine paths and repository details.

    Args:
        source: Checkpoint with the optimizer already stripped, as Ultralytics leaves it.
        out: Where to write; replaced only by a checkpoint that passed the checks.
        network: What was trained.

    Raises:
        SystemExit: If a machine path is left or the file is too large to ship.
    """
    checkpoint = torch.load(source, map_location="cpu", weights_only=False)  # our own file, made a moment ago
    model = checkpoint["model"]
    model.yaml["yaml_file"] = network.name
    model.args = _clean_arguments(model.args, network.name)
    model.criterion = None
    for module in model.modules():
        module.__dict__.pop("pt_path", None)
    checkpoint["train_args"] = _clean_arguments(checkpoint["train_args"], network.name)
    for key in ("git", "optimizer", "ema", "updates", "train_results", "scaler", "docs", "date"):
        checkpoint.pop(key, None)
    told = [text for text in strings_in([checkpoint, vars(model)]) if Path(text).is_absolute()]
    if told:
        raise SystemExit(f"the checkpoint still names machine paths: {told}; add their keys to _PATH_ARGUMENTS")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        torch.save(checkpoint, temporary)
        written, size = temporary.read_bytes(), temporary.stat().st_size
        for folder in {ROOT, source.resolve().parent, Path.home()}:
            if str(folder).encode() in written:
                raise SystemExit(f"the checkpoint still contains {folder}; find out which attribute holds it")
        if size > network.max_bytes:
            raise SystemExit(f"the checkpoint has {size} bytes, at most {network.max_bytes} ship; lower its scale")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def evaluate(checkpoint: Path, options: Options) -> tuple[float, float]:
    """Score a checkpoint on the demo set's own validation split.

    Returns:
        mAP50-95 and mAP50.
    """
    from ultralytics import YOLO

    work, size = options.work, options.network.imgsz
    data = write_demo_set(work / "demo", imgsz=size, rotated=options.task == "obb")
    torch.set_num_threads(options.threads)
    metrics = YOLO(checkpoint).val(
        data=str(data), imgsz=size, rect=False, batch=16, device="cpu", workers=0, plots=False, project=str(work)
    )
    return float(metrics.box.map), float(metrics.box.map50)


def main() -> int:
    """Train, clean, check and install the checkpoint."""
    options = parse_options()
    options.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    best = train(options)
    minutes = (time.monotonic() - started) / 60
    candidate = options.work / options.network.out
    clean_checkpoint(best, candidate, options.network)
    map5095, map50 = evaluate(candidate, options)
    print(f"{minutes:.1f} min, {candidate.stat().st_size} bytes, mAP50-95 {map5095:.4f}, mAP50 {map50:.4f}")
    if map5095 < options.min_map:
        print(f"below --min-map {options.min_map}: {options.out} is left as it was", file=sys.stderr)
        return 1
    clean_checkpoint(candidate, options.out, options.network)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
