"""A small trained checkpoint of any model family: from Ultralytics' own description, on drawn scenes, on a CPU."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yoloquant.io import atomic_path


@dataclass(frozen=True)
class Training:
    """How a family is trained; the name of its checkpoint holds all of it.

    Attributes:
        imgsz: Input size in pixels.
        scenes: Drawn training images.
        epochs: Passes over them.
        batch: Images per step.
        seed: Of the training; the scenes have their own.
        threads: CPU threads; the result does not depend on them in any way that matters, so they are not in the name.
    """

    imgsz: int = 160
    scenes: int = 1200
    epochs: int = 20
    batch: int = 16
    seed: int = 0
    threads: int = 1

    @property
    def key(self) -> str:
        """The settings as part of a file name."""
        values = {k: v for k, v in asdict(self).items() if k != "threads"}
        return "-".join(f"{name}{value}" for name, value in values.items())


def trained(family: str, training: Training, data: Path, folder: Path) -> Path:
    """The checkpoint of a family, trained unless the folder has it.

    Args:
        family: What Ultralytics calls the model, for instance ``yolov10n``, or the path of a model yaml.
        training: How.
        data: Data yaml.
        folder: Where checkpoints are kept; a checkpoint is there whole or not at all.

    Returns:
        Path of the ``.pt`` file.

    Raises:
        FileNotFoundError: Ultralytics knows no such model.
    """
    name = Path(family).stem
    kept = folder / f"{name}-{training.key}.pt"
    if not kept.is_file():
        best = _train(family, training, data, folder / "runs" / kept.stem)
        with atomic_path(kept) as temporary:
            shutil.copyfile(best, temporary)
    return kept


def described(family: str) -> Path:
    """The model yaml of a family; its scale is in its name.

    Raises:
        FileNotFoundError: There is none.
    """
    from ultralytics.nn.tasks import yaml_model_load

    wanted = Path(family if family.endswith(".yaml") else f"{family}.yaml")
    yaml_model_load(wanted)  # looks the name up without downloading anything
    return wanted


def _train(family: str, training: Training, data: Path, folder: Path) -> Path:
    import torch
    from ultralytics import YOLO

    from tools.train_demo_model import speed_up

    model = YOLO(str(described(family)), task="detect")

    def on_pretrain_routine_end(trainer: Any) -> None:
        speed_up(trainer.model)
        torch.set_num_threads(training.threads)

    model.add_callback("on_pretrain_routine_end", on_pretrain_routine_end)
    model.train(
        data=str(data),
        imgsz=training.imgsz,
        epochs=training.epochs,
        batch=training.batch,
        nbs=training.batch,
        seed=training.seed,
        device="cpu",
        workers=0,
        pretrained=False,
        optimizer="AdamW",
        lr0=0.002,
        lrf=0.02,
        cos_lr=True,
        warmup_epochs=1.0,
        close_mosaic=max(1, training.epochs // 3),
        scale=0.4,
        erasing=0.0,
        val=False,  # the last epoch is validated all the same
        plots=False,
        amp=False,
        verbose=False,
        project=str(folder.resolve().parent),
        name=folder.name,
        exist_ok=True,
    )
    return Path(model.trainer.last)
