"""Section 1: verdicts that were wrong once."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from tools.verdicts.bench import LENIENT, QUICK, VAL, Bench, Case, Outcome
from yoloquant.bridge.checkpoint import load_model
from yoloquant.data import demo
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.io import atomic_path
from yoloquant.quantization.artifact import Artifact, save_checkpoint
from yoloquant.quantization.ptq import quantize
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.targets import get
from yoloquant.targets.export import export
from yoloquant.targets.exports import load_exports, locked, save_exports
from yoloquant.targets.schemes import resolve_schemes
from yoloquant.training.train import TrainResult
from yoloquant.types import ExportedModel


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
    return bench.validate(model=bench.pruned, exports=bench.pruned.parent / "exports")


def without_original(bench: Bench) -> Outcome:
    """The same where the original is not to be found."""
    with tempfile.TemporaryDirectory() as elsewhere:
        alone = Path(elsewhere) / "a" / "b" / "c" / "d" / "e" / "f" / "g"
        shutil.copytree(bench.pruned.parent, alone)
        return bench.validate(model=alone / "pruned.pt", exports=alone / "exports", output=alone / "report")


def unexpected(bench: Bench) -> Outcome:
    """An exception that nobody expected."""
    with patch("yoloquant.evaluation.pass_job.evaluate", side_effect=RuntimeError("surprise")):
        return bench.validate(output=bench.folder / "unexpected")


def peak_memory(bench: Bench) -> Outcome:
    """The peak of an artifact is not its parent's."""
    from yoloquant.evaluation.memory import peak_memory as measure

    (exported,) = load_exports(bench.exports)
    held = np.ones(400_000_000, np.uint8)
    peak = measure(exported, 1) or 0
    small = 0 < peak < len(held)
    return Outcome(0 if small else 1, f"{peak / 1e6:.0f} MB beside a parent of more than {len(held) / 1e6:.0f} MB")


def beaten_training(bench: Bench) -> Outcome:
    """A trained portable plan, beside which a runtime's own plan does better by calibration alone."""
    options = QuantizeOptions(imgsz=demo.IMGSZ, calibration=CalibrationOptions(images=8))
    portable = quantize(str(bench.model), data=bench.data, schemes=resolve_schemes("portable"), options=options)
    plan = portable.plans["portable"]
    points = tuple(
        p if p.params is None or p.fixed else replace(p, params=replace(p.params, scale=p.params.scale * 4))
        for p in plan.points
    )
    best = bench.folder / "best.pt"
    replace(portable, plans={"portable": replace(plan, points=points)}, bias={}).save(best)
    result = TrainResult(best, bench.folder, 0.93, 0.92, scheme="portable")
    with patch("yoloquant.api.train", return_value=result):
        return bench.run("train", str(bench.model), f"data={bench.data}", "images=8")


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
    export(Artifact.load(bench.pruned.with_name("pruned_int8.pt")), [get("onnxruntime")], folder=folder)
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


def one_replicate(bench: Bench) -> Outcome:
    """One replicate of the bootstrap."""
    return bench.validate("latency=false", "memory=false", "bootstrap=1")


def one_object(bench: Bench) -> Outcome:
    """One labelled object in all images."""
    root = bench.relabelled("one-object", lambda c: c)
    files = sorted((root / "labels" / "val").glob("*.txt"), key=lambda path: -path.stat().st_size)
    files[0].write_text(files[0].read_text().splitlines()[0] + "\n")
    for path in files[1:]:
        path.write_text("")
    gate = bench.write_gate("drop", {"name": "drop", "limits": {"map_drop": 0.1}, "baseline_map": 0})
    return bench.validate(data=bench.write_data("one-object", path=str(root)), gate=gate)


def calibrated_on_folder(bench: Bench) -> Outcome:
    """The folder of the scored images calibrated the artifact."""
    options = QuantizeOptions(imgsz=demo.IMGSZ, calibration=CalibrationOptions(images=8))
    scored, schemes = bench.data.parent / "images" / "val", resolve_schemes("onnxruntime")
    artifact = quantize(str(bench.model), data=scored, schemes=schemes, options=options)
    export(artifact, [get("onnxruntime")], folder=bench.folder / "flattered")
    return bench.validate(exports=bench.folder / "flattered")


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


def lifted_for_floats(bench: Bench) -> Outcome:
    """A limit that is lifted for float files alone still holds for INT8."""
    content = {"name": "lifted", "limits": {"fidelity": 1.0}, "targets": {"onnxruntime:fp32": {"fidelity": None}}}
    return bench.validate(gate=bench.write_gate("lifted", content))


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


def killed(bench: Bench) -> Outcome:
    """An export of two targets that is killed while it builds the second one."""
    folder = bench.folder / "killed"
    artifact = Artifact.load(bench.quantized_model)
    job = multiprocessing.get_context("fork").Process(target=_killed, args=(artifact, folder))
    job.start()
    job.join()
    left = [path for path in folder.iterdir() if path.name.startswith(".") and path.is_dir()]
    listed = [exported.target for exported in load_exports(folder)]
    export(artifact, [get("onnxruntime")], folder=folder)
    swept = [path for path in left if path.exists()]
    right = job.exitcode == -signal.SIGKILL and len(left) == 1 and listed == ["onnxruntime"] and not swept
    return Outcome(
        0 if right else 1, f"listed: {', '.join(listed)}; {len(left)} leftovers, {len(swept)} after the next"
    )


def _killed(artifact: Artifact, folder: Path) -> None:
    class Second(type(get("onnxruntime"))):  # type: ignore[misc]
        def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
            with atomic_path(folder / f"{stem}-onnxruntime.onnx") as temporary:
                temporary.write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    export(artifact, [get("onnxruntime"), Second()], folder=folder)


def foreign_report(bench: Bench) -> Outcome:
    """A bundle's report of another artifact."""
    report = bench.folder / "for-bundle"
    bench.validate(output=report)
    words = ["bundle=true", f"report={report / 'report.json'}", f"output={bench.folder / 'bundles'}"]
    return bench.run("export", str(bench.pruned.with_name("pruned_int8.pt")), "targets=onnxruntime", *words)


def undecided_report(bench: Bench) -> Outcome:
    """A bundle's report whose verdict is inconclusive."""
    report = bench.folder / "undecided"
    bench.validate(*QUICK, "limit=2", output=report)
    words = ["bundle=true", f"report={report / 'report.json'}", f"output={bench.folder / 'bundles'}"]
    return bench.run("export", str(bench.quantized_model), "targets=onnxruntime", *words)


def foreign_names(bench: Bench) -> Outcome:
    """Class names in exports.json that are not the model's."""
    return bench.validate(exports=bench.relisted("renamed", ["zebra", *_names(bench)[1:]]))


def twice_a_name(bench: Bench) -> Outcome:
    """Two classes of one name: limits of classes hold for each."""
    names = _names(bench)
    names[1] = names[0]
    host = load_model(bench.model)
    host.module.names = dict(enumerate(names))
    report = bench.folder / "twice"
    done = bench.validate(
        model=bench.checkpoint("twice.pt", host.module),
        exports=bench.relisted("twice-exports", names),
        data=bench.write_data("twice", names=names),
        output=report,
    )
    target = json.loads((report / "report.json").read_text(encoding="utf-8"))["targets"][0]
    classes = sorted(target["comparison"]["per_class_drop"])
    return Outcome(done.code, f"drops of {len(classes)} classes: {', '.join(classes)}\n{done.text}")


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
    Case("5 an exception nobody expected", unexpected, 70, "error: a bug of yoloquant: RuntimeError: surprise; please"),
    Case("6 peak memory", peak_memory, 0, "MB beside a parent"),
    Case("7 latency of an Edge TPU", foreign_latency, 0, "not measured here: it is for coral"),
    Case("8 a runtime's own plan beats training", beaten_training, 0, "note: calibration alone does better for "),
    Case("9 latency=false and a limit on it", latency_off, 3, r"was switched off \(latency=false\)"),
    Case("10 two artifacts of one target", two_of_one_target, 1, "onnxruntime:pruned-onnxruntime.onnx"),
    Case("11 exports of yesterday", stale, 2, "was made from other weights"),
    Case("12 two images", two_images, 3, "2 different images prove nothing and fail nothing; at least 30 are needed"),
    Case("12 one replicate", one_replicate, 2, r"error: .*bootstrap.*100"),
    Case("12 one labelled object", one_object, 3, "1 labelled objects prove nothing and fail nothing; at least 10"),
    Case("13 a folder of scored images calibrated", calibrated_on_folder, 2, "8 of 40 scored images calibrated"),
    Case("13 scored images calibrated", calibrated_on, 2, "8 of 16 scored images calibrated"),
    Case("13 the same, allowed", calibrated_on_allowed, 3, "accepted by allow_scored=true"),
    Case("14 unknown target in a gate", unknown_target, 2, "did you mean 'openvino'"),
    Case(
        "14 a limit lifted for float files alone", lifted_for_floats, 1, "fidelity to FP32 is .*, allowed is at least 1"
    ),
    Case("14 fidelity: -1", negative_fidelity, 2, "-1 is out of range"),
    Case("15 label folder missing", no_labels, 2, "there is not one label file"),
    Case("16 an error after a PASS", error_after_pass, 2, "left: junit.xml"),
    Case("17 exports at once", together, 0, "8 of 8 artifacts are listed"),
    Case("17 an export that is killed", killed, 0, "listed: onnxruntime; 1 leftovers, 0 after the next"),
    Case("18 a report of another artifact", foreign_report, 2, "the report is of another artifact"),
    Case("18 a report that decides nothing", undecided_report, 2, "verdict on onnxruntime is inconclusive"),
    Case("19 two classes of one name", twice_a_name, 0, r"drops of 6 classes: .*cone \[0\], cone \[1\]"),
    Case("19 other names in exports.json", foreign_names, 2, "has other classes than 'demo.pt': class 0 is 'zebra'"),
    Case("20 latency as bench measures it", timed, 0, "p50 .* ms, p90 .* ms, ratio"),
)
