"""Does every known way to a wrong verdict end in the right one?

Runs the command on the embedded demo model, once for each way, and prints a table: case, exit code, sentence, right?
Artifacts are of ONNX Runtime, which is always installed; images are drawn. Nothing but a temporary folder is written.

    python tools/check_verdicts.py

Options (``key=value`` or ``--key value``): only (cases whose name contains this), out (a Markdown file).
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import multiprocessing
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.options import parse_options
from yoloquant.bridge.checkpoint import load_model
from yoloquant.cli.main import main as command
from yoloquant.data import demo
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.io import resource
from yoloquant.quantization.artifact import save_checkpoint
from yoloquant.quantization.ptq import quantize
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.targets import get
from yoloquant.targets.export import export
from yoloquant.targets.exports import load_exports, locked, save_exports
from yoloquant.targets.schemes import resolve_schemes
from yoloquant.types import ExportedModel

DEFAULTS = {"only": "", "out": ""}
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
        folder: A temporary folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        prepared = demo.generator().write_demo_set(folder / "data", train=TRAIN, val=VAL, imgsz=demo.IMGSZ)
        self.data = Path(str(prepared))
        self.model = folder / "demo.pt"
        shutil.copyfile(resource("datasets", "demo.pt"), self.model)
        self.exports = self.export(self.model, "exports")
        self.gate = self.write_gate("lenient", LENIENT)

    def export(self, model: Path, name: str) -> Path:
        """Quantize and export a checkpoint for ONNX Runtime."""
        options = QuantizeOptions(imgsz=demo.IMGSZ, calibration=CalibrationOptions(images=8))
        artifact = quantize(str(model), data=self.data, schemes=resolve_schemes("onnxruntime"), options=options)
        export(artifact, [get("onnxruntime")], folder=self.folder / name)
        return self.folder / name

    def damaged(self, name: str) -> Path:
        """A checkpoint that was made from the demo model, with a tenth of every weight gone."""
        host = load_model(self.model)
        module = copy.deepcopy(host.module)
        rng = np.random.default_rng(0)
        import torch

        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim == 4:
                    gone = torch.from_numpy(rng.random(tuple(parameter.shape)) < 0.1)
                    parameter.masked_fill_(gone, 0.0)
        path = self.folder / "runs" / "pruned" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, module, {"imgsz": demo.IMGSZ, "task": "detect"})
        return path

    def write_gate(self, name: str, content: dict[str, object]) -> Path:
        """Write a gate."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def write_data(self, name: str, **changes: object) -> Path:
        """The data yaml with other keys."""
        content = {**yaml.safe_load(self.data.read_text(encoding="utf-8")), "path": str(self.data.parent), **changes}
        path = self.data.parent / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

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
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command(list(words))
        texts = [out.getvalue(), err.getvalue()]
        for name in ("report.md", "junit.xml"):
            if report is not None and (report / name).is_file():
                texts.append((report / name).read_text(encoding="utf-8"))
        return Outcome(code, "\n".join(texts))


def _names(bench: Bench) -> list[str]:
    return list(load_model(bench.model).names)


def healthy(bench: Bench) -> Outcome:
    """Nothing is wrong."""
    return bench.validate()


def permuted(bench: Bench) -> Outcome:
    """The data list the model's classes backwards."""
    names = _names(bench)
    root = bench.relabelled("permuted", lambda c: len(names) - 1 - c)
    data = bench.write_data("permuted", path=str(root), names=names[::-1])
    return bench.validate(data=data)


def other_names(bench: Bench) -> Outcome:
    """The data have other classes."""
    return bench.validate(data=bench.write_data("others", names=[*_names(bench)[:-1], "zebra"]))


def shifted_labels(bench: Bench) -> Outcome:
    """Labels count from another class than the names do."""
    count = len(_names(bench))
    root = bench.relabelled("shifted", lambda c: (c + 1) % count)
    return bench.validate(data=bench.write_data("shifted", path=str(root)))


def nothing_to_find(bench: Bench) -> Outcome:
    """The FP32 model finds nothing on the images."""
    import cv2

    folder = bench.folder / "grey"
    folder.mkdir()
    for index in range(VAL):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((64, 64, 3), 100 + index, np.uint8))
    return bench.validate(data=None, source=folder)


def gate_in_points(bench: Bench) -> Outcome:
    """A gate in points."""
    return bench.validate(gate=bench.write_gate("points", {"name": "points", "limits": {"map_drop": 2}}))


def gate_in_percent(bench: Bench) -> Outcome:
    """A gate in percent."""
    return bench.validate(gate=bench.write_gate("percent", {"name": "percent", "limits": {"fidelity": 92}}))


def pruned_against_itself(bench: Bench) -> Outcome:
    """The printed next step after pruning: the pruned model is named as the model."""
    model = bench.damaged("pruned.pt")
    return bench.validate(model=model, exports=bench.export(model, "runs/pruned/exports"))


def without_original(bench: Bench) -> Outcome:
    """The same where the original is not to be found."""
    model = bench.folder / "runs" / "pruned" / "pruned.pt"
    with tempfile.TemporaryDirectory() as elsewhere:
        alone = Path(elsewhere) / "a" / "b" / "c" / "d" / "e" / "f" / "g"
        shutil.copytree(model.parent, alone)
        return bench.validate(model=alone / "pruned.pt", exports=alone / "exports", output=alone / "report")


def peak_memory(bench: Bench) -> Outcome:
    """The peak of an artifact is not its parent's."""
    from yoloquant.evaluation.memory import peak_memory as measure

    (exported,) = load_exports(bench.exports)
    held = np.ones(400_000_000, np.uint8)
    peak = measure(exported, 1) or 0
    small = 0 < peak < len(held)
    return Outcome(0 if small else 1, f"{peak / 1e6:.0f} MB beside a parent of more than {len(held) / 1e6:.0f} MB")


def foreign_latency(bench: Bench) -> Outcome:
    """The time of an artifact on a processor that it is not for."""
    from yoloquant.evaluation.latency import unmeasured

    return Outcome(0, unmeasured(get("edgetpu")))


def latency_off(bench: Bench) -> Outcome:
    """A limit on latency, and latency=false."""
    content = {**LENIENT, "limits": {**LENIENT["limits"], "latency_ratio": 1.5}}  # type: ignore[dict-item]
    return bench.validate(gate=bench.write_gate("timed", content))


def two_of_one_target(bench: Bench) -> Outcome:
    """Two artifacts of one target in a folder, one of them broken."""
    folder = bench.folder / "two"
    shutil.copytree(bench.exports, folder)
    bench.export(bench.folder / "runs" / "pruned" / "pruned.pt", "two")
    return bench.validate(*QUICK, "allow_stale=true", exports=folder)


def stale(bench: Bench) -> Outcome:
    """The checkpoint was trained again since the export."""
    again = bench.folder / "again"
    again.mkdir()
    host = load_model(bench.model)
    module = copy.deepcopy(host.module)
    delattr(module, "yoloquant_origin")
    next(module.parameters()).data.mul_(1.01)
    save_checkpoint(again / "demo.pt", module, {"imgsz": demo.IMGSZ, "task": "detect"})
    return bench.validate(model=again / "demo.pt")


def two_images(bench: Bench) -> Outcome:
    """Two images."""
    return bench.validate(*QUICK, "limit=2")


def calibrated_on(bench: Bench) -> Outcome:
    """The scored images calibrated the artifact."""
    return bench.validate(*QUICK, "split=train")


def calibrated_on_allowed(bench: Bench) -> Outcome:
    """The same, allowed: the report says so."""
    return bench.validate(*QUICK, "split=train", "allow_scored=true")


def unknown_target(bench: Bench) -> Outcome:
    """A gate with a target that does not exist."""
    content = {**LENIENT, "targets": {"opnevino": {"map_drop": 0.01}}}
    return bench.validate(gate=bench.write_gate("unknown", content))


def negative_fidelity(bench: Bench) -> Outcome:
    """A limit that everything holds."""
    return bench.validate(gate=bench.write_gate("negative", {"name": "n", "limits": {"fidelity": -1}}))


def no_labels(bench: Bench) -> Outcome:
    """The label folder is missing."""
    root = bench.folder / "unlabelled"
    shutil.copytree(bench.data.parent, root)
    shutil.rmtree(root / "labels" / "val")
    return bench.validate(data=bench.write_data("unlabelled", path=str(root)))


def error_after_pass(bench: Bench) -> Outcome:
    """A validation that cannot start, after one that passed into the same folder."""
    report = bench.folder / "fresh"
    first = bench.validate(output=report)
    second = bench.validate(output=report, gate="missing")
    left = sorted(path.name for path in report.iterdir())
    junit = (report / "junit.xml").read_text(encoding="utf-8")
    right = left == ["junit.xml"] and 'errors="1"' in junit and "missing" in junit and first.code == 0
    return Outcome(second.code if right else -1, f"left: {', '.join(left)}; {second.text}")


def together(bench: Bench) -> Outcome:
    """Eight exports into one folder at once: every artifact is listed."""
    (exported,) = load_exports(bench.exports)
    folder = bench.folder / "together"
    folder.mkdir()
    jobs = [multiprocessing.get_context("fork").Process(target=_list_one, args=(exported, folder, i)) for i in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    found = len(load_exports(folder))
    return Outcome(0 if found == len(jobs) else 1, f"{found} of {len(jobs)} artifacts are listed")


def _list_one(exported: ExportedModel, folder: Path, index: int) -> None:
    path = folder / f"{index}.onnx"
    with locked(folder):
        shutil.copyfile(exported.path, path)
        save_exports(folder, [replace(exported, path=path)])


def foreign_names(bench: Bench) -> Outcome:
    """Class names in exports.json that are not the model's."""
    folder = bench.folder / "renamed"
    shutil.copytree(bench.exports, folder)
    listing = folder / "exports.json"
    content = json.loads(listing.read_text())
    content["exports"][0]["info"]["names"][0] = "zebra"
    listing.write_text(json.dumps(content))
    return bench.validate(exports=folder)


def timed(bench: Bench) -> Outcome:
    """Latency in a process of its own, with its spread."""
    report = bench.folder / "timed"
    done = bench.validate("memory=false", "bootstrap=100", "threads=1", output=report)
    target = json.loads((report / "report.json").read_text(encoding="utf-8"))["targets"][0]
    latency, spread = target["latency"], target["comparison"]["latency_spread"]
    right = latency["low_ms"] <= latency["median_ms"] <= latency["p90_ms"] and spread["low"] <= spread["high"]
    text = f"p50 {latency['median_ms']:.1f} ms, p90 {latency['p90_ms']:.1f} ms, ratio {spread['value']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"  # noqa: E501
    return Outcome(done.code if right else -1, f"{text}\n{done.text}")


CASES = (
    Case("0 healthy model", healthy, 0, "verdict: PASS"),
    Case("1 classes in another order", permuted, 0, "were mapped by name"),
    Case("1 other classes", other_names, 2, r"has other classes than the model: class \d+ is 'zebra'"),
    Case("2 labels shifted by one class", shifted_labels, 3, r"the FP32 model itself scores \d+\.\d points"),
    Case("2 nothing to find", nothing_to_find, 3, "the FP32 model itself finds 0 objects"),
    Case("3 a gate in points", gate_in_points, 2, r"200 points.*did you mean 0\.02\?"),
    Case("3 a gate in percent", gate_in_percent, 2, r"did you mean 0\.92\?"),
    Case("4 a pruned model named as the model", pruned_against_itself, 1, "the baseline is 'demo.pt'"),
    Case("4 the same without the original", without_original, 0, "the baseline is 'pruned.pt' itself"),
    Case("6 peak memory", peak_memory, 0, "MB beside a parent"),
    Case("7 latency of an Edge TPU", foreign_latency, 0, "not measured here: it is for coral"),
    Case("9 latency=false and a limit on it", latency_off, 3, r"was switched off \(latency=false\)"),
    Case("10 two artifacts of one target", two_of_one_target, 1, "onnxruntime:pruned-onnxruntime.onnx"),
    Case("11 exports of yesterday", stale, 2, "was made from other weights"),
    Case("12 two images", two_images, 3, "2 images prove nothing and fail nothing; at least 30 are needed"),
    Case("13 scored images calibrated", calibrated_on, 2, "8 of 16 scored images calibrated"),
    Case("13 the same, allowed", calibrated_on_allowed, 3, "accepted by allow_scored=true"),
    Case("14 unknown target in a gate", unknown_target, 2, "did you mean 'openvino'"),
    Case("14 fidelity: -1", negative_fidelity, 2, "-1 is out of range"),
    Case("15 label folder missing", no_labels, 2, "there is not one label file"),
    Case("16 an error after a PASS", error_after_pass, 2, "left: junit.xml"),
    Case("17 exports at once", together, 0, "8 of 8 artifacts are listed"),
    Case("19 other names in exports.json", foreign_names, 2, "has other classes than 'demo.pt': class 0 is 'zebra'"),
    Case("20 latency as bench measures it", timed, 0, "p50 .* ms, p90 .* ms, ratio"),
)


def run(only: str) -> list[str]:
    """Run the cases; returns the lines of a Markdown table."""
    lines = ["| case | exit code | sentence | right? |", "|---|---:|---|---|"]
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as name:
        bench = Bench(Path(name))
        for case in CASES:
            if only and only not in case.name and not case.name.startswith("4"):  # later cases need what 4 makes
                continue
            outcome = case.act(bench)
            found = re.search(case.sentence, outcome.text)
            right = outcome.code == case.code and found is not None
            line = next((t for t in outcome.text.splitlines() if re.search(case.sentence, t)), outcome.text[-1500:])
            line = " ".join(line.replace(name, "").split()).replace("|", "/")
            lines.append(f"| {case.name} | {outcome.code} | {line[:200]} | {'yes' if right else 'NO'} |")
            print(lines[-1] if right else f"{lines[-1]}\n{outcome.text[-3000:]}", flush=True)
    return lines


def main(arguments: Sequence[str]) -> int:
    """Run the tool; exit code 1 if a verdict is wrong."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    lines = run(options["only"])
    if options["out"]:
        Path(options["out"]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if any(line.endswith("| NO |") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
