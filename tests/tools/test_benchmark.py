"""The benchmark and the comparison of ranges: whole runs on a tiny model, and their parts on known numbers."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ["YOLO_AUTOINSTALL"] = "false"
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from validation_fakes import NAMES, FakeRunner, write_dataset  # noqa: E402

from tools.bench.agreement import Agreement, agree  # noqa: E402
from tools.bench.contenders import Contender, Field, Kind  # noqa: E402
from tools.bench.goals import goals  # noqa: E402
from tools.bench.latency import Timing, measure, ratio  # noqa: E402
from tools.bench.mirror import mirror  # noqa: E402
from tools.bench.rows import build_rows, overhead  # noqa: E402
from tools.bench.table import HEAD, markdown  # noqa: E402
from tools.bench.theirs import export_theirs, load_theirs  # noqa: E402
from yoloquant.data.dataset import ValidationSet  # noqa: E402
from yoloquant.errors import UsageError  # noqa: E402
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe  # noqa: E402
from yoloquant.types import Verdict  # noqa: E402

IMGSZ = 64
MODEL: dict[str, Any] = {
    "nc": len(NAMES),
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[[1, 2], 1, "Detect", ["nc"]]],
}


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools.{name}", ROOT / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _write_model(path: Path) -> Path:
    """A tiny untrained detector whose scores are high enough for some detections."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(MODEL, verbose=False)
    model.names, model.task = dict(enumerate(NAMES)), "detect"
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that let every layer carry a signal
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_var.uniform_(0.1, 0.4)
    for branch in (*model.model[-1].cv2, *model.model[-1].cv3):
        branch[-1].weight.data.normal_(0, 0.3)
        branch[-1].bias.data.normal_(-1, 0.5)
    torch.save({"model": model, "ema": None, "train_args": {"imgsz": IMGSZ}}, path)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A checkpoint and a data set of ten images."""
    root = tmp_path_factory.mktemp("benchmark")
    return SimpleNamespace(model=_write_model(root / "tiny.pt"), data=write_dataset(root / "set", count=10), root=root)


@pytest.mark.nightly
def test_a_whole_benchmark(tiny: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool, out = _tool("benchmark"), tmp_path / "out"
    arguments = [f"model={tiny.model}", f"data={tiny.data}", f"imgsz={IMGSZ}", "images=8", "--limit", "6", "threads=1"]
    arguments += [f"output={out}", "targets=onnxruntime,tensorrt", "rounds=4", "bootstrap=20", "skip_ultralytics=true"]
    before = sorted(p.name for p in tiny.root.rglob("*"))
    assert tool.main(arguments) == 0
    assert sorted(p.name for p in tiny.root.rglob("*")) == before, "something was written beside the user's files"

    text = (out / "benchmark.md").read_text()
    assert text.strip() in capsys.readouterr().out
    result = json.loads((out / "benchmark.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    runs = ["tensorrt", "tensorrt_portable", "tensorrt@fused", "tensorrt@fused_portable"]
    assert list(rows) == ["fp32", "onnxruntime_fp32", "onnxruntime", "onnxruntime_portable", *runs]
    assert all(f"| {name} |" in text for name in rows)
    assert result["environment"]["images"] == 6 and result["environment"]["calibration_images"] == 8
    for name in ("onnxruntime", "onnxruntime_portable"):
        row = rows[name]
        drop = row["comparison"]["map_drop"]["value"]
        assert drop == pytest.approx(rows["fp32"]["map50_95"] - row["map50_95"], abs=1e-12)
        assert 0.3 < row["comparison"]["fidelity"]["value"] <= 1
        assert row["latency"]["rounds"] == 4 and row["latency"]["ratio_fp32"] > 0
        assert row["latency"]["ratio_ultralytics"] is None
        assert row["pass_ms"]["runs"] == 6
        assert 0 < row["size_bytes"] < rows["onnxruntime_fp32"]["size_bytes"] * 2
        assert abs(row["agreement"]["difference"]) <= 0.001
    assert rows["fp32"]["agreement"]["theirs"] == pytest.approx(rows["fp32"]["map50_95"], abs=1e-6)
    for name, twin in zip(runs[:2], runs[2:], strict=True):  # one file, run in two ways, validated by them once
        alone, like = rows[name], rows[twin]
        assert (like["file"], like["twin_of"], like["tensorrt"]) == (alone["file"], name, None) and alone["tensorrt"]
        assert alone["agreement"]["twin"] == twin and like["agreement"]["twin"] == ""
        assert alone["agreement"]["theirs"] == like["agreement"]["theirs"]
        assert like["agreement"]["difference"] == pytest.approx(0, abs=1e-6), "the same file, run in the same way"
        assert alone["latency"] is like["latency"] is None
    assert f"{runs[2]} instead of {runs[0]}" in text and "`@fused`: the same file" in text
    assert result["overhead"]["models"] == ["fp32", "onnxruntime", "tensorrt"] and result["overhead"]["ratio"] > 1
    verdicts = {goal["what"]: goal["verdict"] for goal in result["goals"]}
    asked = [what.split(":")[0] for what in verdicts if what.endswith("difference to YOLO(file).val()")]
    assert asked == ["onnxruntime", "onnxruntime_portable", *runs[2:]]
    assert verdicts["onnxruntime: mAP50-95 difference to YOLO(file).val()"] == "pass"
    assert not any("litert" in what for what in verdicts)


@pytest.mark.nightly
def test_ultralytics_own_export(tiny: SimpleNamespace, tmp_path: Path) -> None:
    from yoloquant.bridge.checkpoint import load_model
    from yoloquant.bridge.host_model import model_info

    data = ValidationSet.from_yaml(tiny.data).take(8)
    described = mirror(data, tmp_path / "data")
    wanted = ("onnxruntime", "tensorrt")
    kept = tmp_path / "kept"
    (made,) = export_theirs(tiny.model, described, IMGSZ, kept, wanted, data_sha256=data.data_hash)
    assert made.error == "" and made.path is not None and made.size_bytes > 0
    stamp = made.path.stat().st_mtime_ns
    (again,) = export_theirs(tiny.model, described, IMGSZ, kept, wanted, data_sha256=data.data_hash)
    assert again == made and again.path is not None and again.path.stat().st_mtime_ns == stamp
    (broken,) = export_theirs(tiny.data, described, IMGSZ, kept, ("onnxruntime",), data_sha256="")
    assert broken.path is None and "export.log" in broken.error

    import torch
    from ultralytics.nn.autobackend import AutoBackend

    runner = load_theirs(made, model_info(load_model(tiny.model), (IMGSZ, IMGSZ)), 1)
    image = np.random.default_rng(0).random((1, 3, IMGSZ, IMGSZ), np.float32)
    expected = AutoBackend(str(made.path), device=torch.device("cpu"))(torch.from_numpy(image))
    expected = expected[0] if isinstance(expected, (list, tuple)) else expected
    np.testing.assert_allclose(runner(image)[0], expected.numpy(), atol=1e-4)


@pytest.mark.nightly
def test_a_comparison_of_ranges(tiny: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool, out = _tool("compare_ranges"), tmp_path / "ranges.md"
    arguments = [f"model={tiny.model}", f"data={tiny.data}", f"imgsz={IMGSZ}", "images=8", "limit=6", "threads=1"]
    arguments += ["scheme=portable", "bootstrap=20", f"out={out}"]
    names = ["minmax everywhere", "entropy everywhere", "default", "default, weight minmax"]
    assert tool.main([*arguments, f"recipes={';'.join(names)}"]) == 0
    text = out.read_text()
    assert text.strip() in capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert [line.split("|")[1].strip() for line in lines] == names
    fidelity = [float(line.split("|")[2]) for line in lines]
    assert all(0.2 < value <= 1 for value in fidelity) and len(set(fidelity)) > 1
    assert tool.main([*arguments, "recipes=guess"]) == 2
    assert "guess" in capsys.readouterr().err


def test_every_recipe_differs_from_the_default_in_what_its_name_says() -> None:
    tool, default = _tool("compare_ranges"), CalibrationRecipe()
    found = tool.recipes()
    assert found["default"] == default and len(set(map(str, found.values()))) == len(found)
    for name, recipe in found.items():
        if not name.startswith("default, "):
            continue
        role, algorithm = name.removeprefix("default, ").split()
        changed = {key for key, value in vars(recipe).items() if value != getattr(default, key)}
        assert changed == {role} and getattr(recipe, role) is Algorithm(algorithm)
    assert tool.chosen("default") == {"default": default}
    with pytest.raises(UsageError, match="allowed are"):
        tool.chosen("default; best")


def test_a_mirror_holds_exactly_the_images(tmp_path: Path) -> None:
    data = ValidationSet.from_yaml(write_dataset(tmp_path / "set", count=6))
    for count in (6, 3, 3):
        described = mirror(data.take(count), tmp_path / "mirror")
        again = ValidationSet.from_yaml(described)
        assert len(again) == count and again.boxes == data.take(count).boxes and again.names == data.names
        assert again.data_hash == data.take(count).data_hash


class _Clock:
    """Time that only passes while a runner infers."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def _runner(clock: _Clock, milliseconds: float, order: list[str], name: str) -> FakeRunner:
    def spend(index: int, output: np.ndarray) -> np.ndarray:
        order.append(name)
        clock.now += milliseconds / 1e3 * (1 + index % 2)  # drifts alike for all
        return output

    return FakeRunner([np.zeros((0, 6))], broken=spend)


def test_latency_is_interleaved_and_ratios_are_taken_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = _Clock(), list[str]()
    monkeypatch.setattr("tools.bench.latency.time", clock)
    groups = {
        "one": {n: _runner(clock, ms, order, n) for n, ms in (("a", 2.0), ("b", 3.0), ("c", 4.0))},
        "two": {"d": _runner(clock, 10.0, order, "d")},
    }
    image = np.zeros((1, 3, 64, 64), np.float32)
    timings = measure(groups, [image], rounds=7, blocks=2)
    assert {name: len(t.times_ms) for name, t in timings.items()} == {"a": 7, "b": 7, "c": 7, "d": 7}
    assert ratio(timings["b"], timings["a"]) == pytest.approx(1.5)
    assert ratio(timings["a"], timings["c"]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="not timed in the same rounds"):
        ratio(timings["a"], timings["d"])
    first = "".join(order[9 : 9 + 12])  # after the warm-up of three: rounds with a rotating start
    assert first == "abc" + "bca" + "cab" + "abc"
    assert timings["a"].median_ms in (pytest.approx(2.0), pytest.approx(4.0))
    order.clear()
    measure({"one": groups["one"]}, [image], rounds=1, blocks=1, settle_ms=7)
    assert "".join(order[9:]) == "aaa" + "a" + "bb" + "b" + "cc" + "c"  # inferences take their time and twice it


def _row(name: str, runtime: str, kind: Kind, **values: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "file": name, "size_bytes": 1_500_000, "error": "", "map50_95": None, "map50": None, "comparison": None,
        "pass_ms": None, "latency": None, "agreement": None, "tensorrt": None, "notes": [], "twin_of": "",
    }  # fmt: skip
    return {"name": name, "runtime": runtime, "kind": kind.value, **empty, **values}


def _compared(drop: float, fidelity: float) -> dict[str, Any]:
    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01}

    return {
        "map_drop": interval(drop),
        "map50_drop": interval(drop),
        "fidelity": interval(fidelity),
        "confidence_shift": -0.002,
        "box_iou": 0.98,
        "matched": 10,
    }


def _agreement(theirs: float) -> dict[str, Any]:
    known = {"ours": 0.4, "ours50": 0.6, "theirs50": 0.6, "error": "", "twin": ""}
    return {**known, "theirs": theirs, "difference": theirs - 0.4}


RTX = {"available": True, "built": True, "float_convs": ["x"], "unseen_convs": [], "summary": "one of them in float"}


def test_goals_and_table() -> None:
    speed = {"median_ms": 10.0, "p90_ms": 11.0, "rounds": 9, "ratio_fp32": 0.5, "ratio_ultralytics": 1.2}
    rows = [
        _row("fp32", "", Kind.BASELINE, map50_95=0.4, map50=0.6),
        _row("litert", "litert", Kind.OURS, comparison=_compared(0.004, 0.96), latency=speed),
        _row("onnxruntime", "onnxruntime", Kind.OURS, error="ValueError: a | b"),
        _row(
            "tensorrt",
            "tensorrt",
            Kind.OURS,
            comparison=_compared(0.006, 0.9),
            tensorrt={"lint_errors": 0, "lint_warnings": 1, "planned_convs": 9, "rtx": RTX},
            agreement=_agreement(0.402),
        ),
        _row("openvino", "openvino", Kind.PORTABLE, agreement={**_agreement(0.41), "twin": "openvino@auto"}),
        _row("openvino@auto", "openvino@auto", Kind.PORTABLE, agreement=_agreement(0.4005), notes=["in bf16"]),
    ]
    rows[-1]["twin_of"] = "openvino"
    spent = {"models": ["fp32"], "wall_s": 11.0, "statistics_s": 1.0, "pure_s": 10.0, "ratio": 1.2, "ratio_pass": 1.1}
    found = goals(rows, spent, agreed=True)
    verdicts = {goal.what: goal.verdict for goal in found}
    assert verdicts == {
        "litert: mAP50-95 drop": Verdict.PASS,
        "litert: fidelity": Verdict.PASS,
        "litert: latency against Ultralytics' file": Verdict.FAIL,
        "onnxruntime: mAP50-95 drop": Verdict.ERROR,
        "onnxruntime: latency against float in the same runtime": Verdict.ERROR,
        "tensorrt: mAP50-95 drop": Verdict.FAIL,
        "tensorrt: lint errors": Verdict.PASS,
        "tensorrt: planned convolutions not in Int8 (TensorRT-RTX)": Verdict.FAIL,
        "tensorrt: mAP50-95 difference to YOLO(file).val()": Verdict.FAIL,
        "openvino@auto: mAP50-95 difference to YOLO(file).val()": Verdict.PASS,
        "wall time of a validation against inference and NMS": Verdict.PASS,
    }
    environment = dict.fromkeys(
        ("model", "images", "boxes", "data", "split", "imgsz", "threads", "cpu", "rounds", "load"), 1
    )
    text = markdown({"rows": rows, "overhead": spent, "environment": {**environment, "calibration_images": 2}}, found)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert all(lines[row["name"]].count("|") == len(HEAD) + 1 for row in rows[:3])
    assert "+0.40 [-0.60, +1.40]" in lines["litert"] and "| 10.0 (11.0) | 0.50 | 1.20 |" in lines["litert"]
    assert "failed: ValueError: a / b" in lines["onnxruntime"]
    assert "+0.200" in text and "one of them in float" in text and "ratio of 1.20" in text
    assert "- `@auto`: in bf16." in text and "openvino@auto instead of openvino." in text


def test_overhead_is_relative_to_inference_and_nms() -> None:
    records = {
        "fp32": SimpleNamespace(infer_ms={0: 400.0, 1: 400.0}, select_ms=[100.0, 100.0]),
        "a": SimpleNamespace(infer_ms={0: 200.0, 1: 200.0}, select_ms=[50.0, 50.0]),
    }
    evaluation: Any = SimpleNamespace(records=records, seconds=1.8)
    found = overhead(evaluation, 0.15)
    assert found["models"] == ["fp32", "a"] and found["pure_s"] == pytest.approx(1.5)
    assert found["ratio_pass"] == pytest.approx(1.2) and found["ratio"] == pytest.approx(1.3)


def test_rows_are_ordered_and_ratios_stay_within_a_runtime() -> None:
    entered = Field()
    for name, kind in (("fp32", Kind.BASELINE), ("x_ultralytics", Kind.THEIRS), ("y", Kind.OURS), ("x", Kind.OURS)):
        entered.add(Contender(name, "" if name == "fp32" else name[0], kind, Path(name)))
    entered.add(Contender("y_fp32", "y", Kind.FLOAT))
    entered.add(Contender("x@auto", "x@auto", Kind.OURS, twin_of="x"))
    times = {"x": ("x", 4.0), "x_ultralytics": ("x", 2.0), "y": ("y", 3.0), "x@auto": ("x@auto", 5.0)}
    timings = {name: Timing(runtime, [ms, ms]) for name, (runtime, ms) in times.items()}
    comparer: Any = SimpleNamespace(evaluation=SimpleNamespace(records={}))
    rows = build_rows(entered, comparer, timings, {})
    assert [row["name"] for row in rows] == ["fp32", "x_ultralytics", "x", "x@auto", "y_fp32", "y"]
    latency = {row["name"]: row["latency"] for row in rows}
    assert latency["x"]["ratio_ultralytics"] == 2.0 and latency["x"]["ratio_fp32"] is None
    assert latency["y"]["ratio_fp32"] is None  # its float model could not be timed
    assert latency["x@auto"]["ratio_ultralytics"] is None and latency["fp32"] is None


def test_a_file_that_ultralytics_cannot_read_is_a_result(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"nothing")
    entered = Field()
    entered.add(Contender("damaged", "onnxruntime", Kind.THEIRS, damaged))
    found = agree(entered, {"damaged": (0.5, 0.6)}, tmp_path / "data.yaml", 64, tmp_path)
    assert isinstance(found["damaged"], Agreement) and found["damaged"].difference is None and found["damaged"].error


def test_a_twin_is_compared_in_the_stead_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, asked = Field(), list[Path]()
    file, other = tmp_path / "a.onnx", tmp_path / "b.onnx"
    kinds = {"a": ("tensorrt", file, ""), "a@fused": ("tensorrt@fused", file, "a"), "b": ("onnxruntime", other, "")}
    for name, (runtime, path, twin_of) in kinds.items():
        entered.add(Contender(name, runtime, Kind.THEIRS, path, twin_of=twin_of))
    assert entered.contenders["a@fused"].base_runtime == "tensorrt" and not entered.contenders["a@fused"].runs_here

    def validator(path: Path, ours: tuple[float, float], *_: object) -> Agreement:
        asked.append(path)
        return Agreement(ours[0], 0.402, ours[1], 0.603)

    monkeypatch.setattr("tools.bench.agreement.ask", validator)
    accuracy = {"a": (0.400, 0.600), "a@fused": (0.4019, 0.603), "b": (0.402, 0.6)}
    found = agree(entered, accuracy, tmp_path / "data.yaml", 64, tmp_path)
    assert asked == [file, other], "each file is validated once"
    assert {name: result.twin for name, result in found.items()} == {"a": "a@fused", "a@fused": "", "b": ""}
    assert found["a"].difference == pytest.approx(0.002) and found["a@fused"].difference == pytest.approx(0.0001)
    del accuracy["a@fused"]  # its run failed: nothing takes the file's own place
    assert {n: r.twin for n, r in agree(entered, accuracy, tmp_path, 64, tmp_path).items()} == {"a": "", "b": ""}


def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = _tool("benchmark")
    assert tool.main(["threads=none", f"output={tmp_path}"]) == 2
    assert "whole number" in capsys.readouterr().err
    assert tool.main([f"model={tmp_path / 'no.pt'}", "data=nowhere.yaml", f"output={tmp_path}"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main(["thread=2"])
    assert tool.Settings.parse(["targets=openvino,tpu9"]).targets == ("openvino",)
    assert "target 'tpu9' does not exist here" in capsys.readouterr().err


def test_timing_percentiles() -> None:
    timing = Timing("x", [float(i) for i in range(1, 12)])
    assert timing.median_ms == 6 and timing.p90_ms == 10
