"""What every case starts from: the demo model, its images and its artifact; and how a case is described."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import ORIGIN
from yoloquant.cli.main import main as command
from yoloquant.data import demo
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.io import atomic_path, resource
from yoloquant.quantization.artifact import Artifact, save_checkpoint
from yoloquant.quantization.ptq import quantize
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.targets import get
from yoloquant.targets.export import export
from yoloquant.targets.schemes import resolve_schemes

TRAIN, VAL = 16, 40
LENIENT = {
    "name": "lenient",
    "limits": {
        "fidelity": 0.6,
        "confidence_shift": {"limit": 0.2, "rule": "veto"},
        "map_drop": {"limit": 0.1, "rule": "veto"},
    },
}
"""Few drawn images and few that calibrate: what is asked is whether a verdict is right, not how good a model is."""
QUICK = ("latency=false", "memory=false", "bootstrap=100", "threads=1")


@dataclass(frozen=True)
class Outcome:
    """What a case ended in.

    Attributes:
        code: Exit code.
        text: Everything that was printed, logged or reported.
    """

    code: int
    text: str


@dataclass(frozen=True)
class Case:
    """One way to a wrong verdict.

    Attributes:
        name: What is wrong.
        act: Does it.
        code: The right exit code.
        sentence: Regular expression that what is said must contain.
    """

    name: str
    act: Callable[[Bench], Outcome]
    code: int
    sentence: str


class Bench:
    """The demo model, its images and its artifact.

    Args:
        base: Holds what is only read; made if it is empty.
        folder: A temporary folder, for what cases change.
    """

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.model, self.exports = base / "demo.pt", base / "exports"
        self.gate = self.write_gate("lenient", LENIENT)
        if not (base / "exports").is_dir():
            shutil.rmtree(base / "data", ignore_errors=True)
            demo.generator().write_demo_set(base / "data", train=TRAIN, val=VAL, imgsz=demo.IMGSZ)
            shutil.copyfile(resource("datasets", "demo.pt"), self.model)
            self.export(self.model, self.exports)

    @property
    def data(self) -> Path:
        """The data yaml."""
        return min((self.base / "data").glob("*.yaml"))

    @cached_property
    def pruned(self) -> Path:
        """A checkpoint that was made from the demo model, with three in a hundred weights gone; exported beside it."""
        host = load_model(self.model)
        module = copy.deepcopy(host.module)
        rng = np.random.default_rng(0)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim == 4:
                    parameter.masked_fill_(torch.from_numpy(rng.random(tuple(parameter.shape)) < 0.03), 0.0)
        path = self.base / "runs" / "pruned" / "pruned.pt"
        if not (path.parent / "exports").is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(path, module, {"imgsz": demo.IMGSZ, "task": "detect"})
            self.export(path, path.parent / "exports")
        return path

    def quantized(self, model: Path) -> Artifact:
        """A checkpoint with ranges for ONNX Runtime."""
        options = QuantizeOptions(imgsz=demo.IMGSZ, calibration=CalibrationOptions(images=8))
        return quantize(str(model), data=self.data, schemes=resolve_schemes("onnxruntime"), options=options)

    def export(self, model: Path, folder: Path) -> Path:
        """Quantize a checkpoint, keep that beside it, and export it for ONNX Runtime."""
        kept = model.with_name(f"{model.stem}_int8.pt")
        if not kept.is_file():
            self.quantized(model).save(kept)
        artifact = Artifact.load(kept)
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            export(artifact, [get("onnxruntime")], folder=temporary)
        return folder

    def checkpoint(self, name: str, module: Any, **arguments: object) -> Path:
        """Write a checkpoint as Ultralytics' trainer does.

        Args:
            name: File name.
            module: The model.
            arguments: Training arguments.
        """
        module = copy.deepcopy(module)
        if hasattr(module, ORIGIN):
            delattr(module, ORIGIN)
        path = self.folder / name
        content = {"model": None, "ema": module, "train_args": {"imgsz": demo.IMGSZ, "task": "detect", **arguments}}
        torch.save(content, path)
        return path

    def relisted(self, name: str, names: Sequence[str]) -> Path:
        """The exports with other class names in their list."""
        folder = self.folder / name
        shutil.copytree(self.exports, folder)
        listing = folder / "exports.json"
        content = json.loads(listing.read_text())
        content["exports"][0]["info"]["names"] = list(names)
        listing.write_text(json.dumps(content))
        return folder

    @property
    def gate_of_one_class(self) -> Path:
        """A gate for a model that finds a sixth of the objects."""
        return self.write_gate("one-class", {**LENIENT, "baseline_map": 0.02})

    def write_gate(self, name: str, content: dict[str, object]) -> Path:
        """Write a gate."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def write_data(self, name: str, **changes: object) -> Path:
        """The data yaml with other keys."""
        content = {**yaml.safe_load(self.data.read_text(encoding="utf-8")), "path": str(self.data.parent), **changes}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    @property
    def quantized_model(self) -> Path:
        """The demo model with its ranges."""
        return self.model.with_name("demo_int8.pt")

    def relabelled(self, name: str, change: Callable[[int], int | None]) -> Path:
        """A copy of the validation images whose classes are others, or whose labels are missing."""
        root = self.folder / name
        shutil.copytree(self.data.parent, root)
        for path in (root / "labels" / "val").glob("*.txt"):
            rows = [line.split() for line in path.read_text().splitlines()]
            path.write_text("".join(f"{change(int(r[0]))} {' '.join(r[1:])}\n" for r in rows))
        return root

    def validate(self, *arguments: str, **changes: object) -> Outcome:
        """Run ``validate``; what its report says counts as said."""
        values = {"model": self.model, "exports": self.exports, "data": self.data, "gate": self.gate, **changes}
        report = Path(str(values.setdefault("output", self.folder / "report")))
        words = [f"{key}={value}" for key, value in values.items() if value is not None]
        return self.run("validate", *words, *(arguments or QUICK), report=report)

    def run(self, *words: str, report: Path | None = None) -> Outcome:
        """Run the command."""
        printed, log = io.StringIO(), logging.StreamHandler(sink := io.StringIO())
        logging.getLogger().addHandler(log)
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                code = command(list(words))
        finally:
            logging.getLogger().removeHandler(log)
        texts = [printed.getvalue(), sink.getvalue()]
        for name in ("report.md", "junit.xml"):
            if report is not None and (report / name).is_file():
                texts.append((report / name).read_text(encoding="utf-8"))
        return Outcome(code, "\n".join(texts))

    def calibrates(self, model: Path, *words: str) -> Outcome:
        """Run ``quantize`` on eight images; what it says, and its exit code."""
        output = self.folder / "calibrated"
        return self.run("quantize", str(model), f"data={self.data}", "images=8", f"output={output}", *words)
