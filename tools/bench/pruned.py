"""The runs that a pruning benchmark compares: pruned by a criterion, at random, and a narrower model."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from yoloquant import api
from yoloquant.bridge.checkpoint import load_model
from yoloquant.pruning.cost import CostModel
from yoloquant.pruning.groups import find_groups
from yoloquant.pruning.prune import prune
from yoloquant.pruning.trace_channels import trace_channels

logger = logging.getLogger(__name__)

MARK = "wanted.json"


@dataclass(frozen=True)
class Variant:
    """One model of the comparison.

    Attributes:
        method: ``taylor``, ``l2`` ... pruned by that criterion; ``random``; or ``narrow``, never pruned.
        share: Share of the multiplications that it lacks.
    """

    method: str
    share: float

    @property
    def name(self) -> str:
        """Unique name."""
        return f"{self.method}-{self.share:.0%}".replace("%", "")


@dataclass(frozen=True)
class Job:
    """What all runs have in common.

    Attributes:
        model: The unpruned float checkpoint.
        data: Data yaml.
        arguments: Ultralytics' training arguments of the fine-tuning.
        prune: Further options of pruning.
        narrow_epochs: Epochs of the narrower model: those of the unpruned one and the fine-tuning's.
    """

    model: Path
    data: str
    arguments: dict[str, Any]
    prune: dict[str, Any]
    narrow_epochs: int


def macs(path: Path, imgsz: int) -> int:
    """Multiply-accumulate operations of a checkpoint."""
    source = load_model(path)
    model = CostModel(find_groups(trace_channels(source.module, (imgsz, imgsz), source.channels)))
    return model(model.groups.full()).macs


def fine_tuned(job: Job, variant: Variant, folder: Path) -> Path:
    """Best checkpoint of a variant; a finished run in the folder is used again."""
    run = (folder / variant.name).resolve()
    best = run / "weights" / "best.pt"
    wanted = json.loads(json.dumps([vars(job), vars(variant)], default=str))
    mark = run / MARK
    if best.is_file() and mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == wanted:
        logger.info("using the finished run in %s", run)
        return best
    shutil.rmtree(run, ignore_errors=True)
    common = {**job.arguments, "project": str(run.parent), "name": run.name, "exist_ok": True}
    if variant.method == "narrow":
        _train_narrow(job, variant, run, common)
    else:
        options = {**job.prune, "amount": variant.share, "criterion": variant.method}
        api.train(job.model, data=job.data, prune=options, **common)
    mark.write_text(json.dumps(wanted), encoding="utf-8")
    return best


def one_shot(job: Job, variant: Variant, imgsz: int, folder: Path) -> Path:
    """The pruned model before fine-tuning, its BatchNorm statistics measured anew."""
    path = folder / f"{variant.name}-untrained.pt"
    if not path.is_file():
        options = {**job.prune, "amount": variant.share, "criterion": variant.method}
        prune(job.model, data=job.data, options=options, imgsz=imgsz, output=path)
    return path


def _train_narrow(job: Job, variant: Variant, run: Path, common: dict[str, Any]) -> None:
    from ultralytics import YOLO

    layout = _narrower(job.model, variant.share, run.parent, int(common["imgsz"]))
    steps = {"nbs": common["batch"]}  # a step for every batch, as fine-tuning takes on small sets
    YOLO(str(layout)).train(data=job.data, **{**steps, **common, "epochs": job.narrow_epochs})


def _narrower(model: Path, share: float, folder: Path, imgsz: int) -> Path:
    """A yaml of the same model, its width such that the share of the multiplications is missing."""
    from ultralytics import YOLO

    layout = dict(load_model(model).module.yaml)  # type: ignore[arg-type]
    layout["backbone"] = layout.pop("unpruned_backbone", layout["backbone"])
    scale = str(layout.get("scale") or "n")
    depth, width, most = layout["scales"][scale]
    full = macs(model, imgsz)
    best: tuple[float, dict[str, Any], float] | None = None
    for step in range(1, 24):
        candidate = {k: v for k, v in layout.items() if k not in {"scale", "yaml_file"}}
        candidate["scales"] = {"n": [depth, width * (1 - step / 24), most]}
        path = _write(folder, candidate, scale)
        found = YOLO(str(path)).model
        costs = CostModel(find_groups(trace_channels(found, (imgsz, imgsz))))
        gap = abs(1 - costs(costs.groups.full()).macs / full - share)
        if best is None or gap < best[0]:
            best = gap, candidate, candidate["scales"]["n"][1]
    assert best is not None
    logger.info("the narrower model has width %.3f instead of %.3f", best[2], width)
    return _write(folder, best[1], scale)


def _write(folder: Path, content: dict[str, Any], scale: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {**content, "scales": {"n": next(iter(content["scales"].values()))}}
    path = folder / "narrow_yolon.yaml"  # without a scale in its name Ultralytics takes the first one
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
