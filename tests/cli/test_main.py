"""The command: exit codes, messages and what reaches the library."""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from core_models import checkpoint, tiny_artifact

from yoloquant import ExportResult, ValidateOptions, api, pipeline
from yoloquant.cli import main as cli
from yoloquant.cli.show import print_next_export
from yoloquant.errors import (
    ArtifactError,
    CalibrationError,
    DataError,
    MissingExtraError,
    ModelError,
    OutputError,
    PlanError,
    TargetError,
    UsageError,
)
from yoloquant.evaluation.results import TargetResult, ValidationResult
from yoloquant.quantization import ptq
from yoloquant.quantization.plan import Plan
from yoloquant.types import Task, Verdict


class Calls:
    """Stands for the library and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: BaseException | None = None
        self.verdict = Verdict.PASS
        self.saved: Any = None

    def __getitem__(self, name: str) -> dict[str, Any]:
        return next(kwargs for n, _, kwargs in self.seen if n == name)

    def targets(self) -> list[str]:
        """Names of the targets that were exported to."""
        return next([t.name for t in args[1]] for n, args, _ in self.seen if n == "export")

    def take(self, name: str, result: Any) -> Any:
        """A function that records its call."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.seen.append((name, args, kwargs))
            if self.error is not None:
                raise self.error
            return result() if callable(result) else result

        return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    found = Calls()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pt").touch()
    (tmp_path / "d.yaml").touch()
    (tmp_path / "other.yaml").touch()

    def result() -> ValidationResult:
        row = TargetResult("fp32", "m.pt", "", found.verdict)
        return ValidationResult(found.verdict, row, (row,), ("a",), 3, 2, (64, 64), "default")

    saved = found.saved = SimpleNamespace(save=found.take("save", None), plans={"portable": None})
    monkeypatch.setattr(api, "quantize", found.take("quantize", saved))
    monkeypatch.setattr(api, "export", found.take("export", lambda: ExportResult(tmp_path / "out", ())))
    monkeypatch.setattr(api, "validate", found.take("validate", result))
    detector = SimpleNamespace(model=SimpleNamespace(task=Task.DETECT))
    monkeypatch.setattr(pipeline, "traced_once", lambda *a, **k: detector)
    monkeypatch.setattr(pipeline, "scored_images", found.take("scored", "images"))
    monkeypatch.setattr(pipeline, "quantize", found.take("quantize", saved))
    monkeypatch.setattr(pipeline, "export", found.take("export", lambda: ExportResult(tmp_path / "out", ())))
    monkeypatch.setattr(pipeline, "validate", found.take("validate", result))
    monkeypatch.setattr(pipeline, "report_or_error", lambda folder: nullcontext(found.take("report", None)))
    monkeypatch.setattr(api, "plan", found.take("plan", lambda: tiny_artifact().plans["portable"]))
    return found


VALIDATE = ["validate", "model=m.pt", "exports=out", "data=d.yaml"]


@pytest.mark.parametrize(
    ("verdict", "extra", "code"),
    [
        (Verdict.PASS, [], 0),
        (Verdict.FAIL, [], 1),
        (Verdict.INCONCLUSIVE, [], 3),
        (Verdict.INCONCLUSIVE, ["inconclusive=0"], 0),
        (Verdict.ERROR, [], 4),
        (Verdict.ERROR, ["inconclusive=0"], 4),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "run"])
def test_exit_code_of_a_verdict(calls: Calls, verb: str, verdict: Verdict, extra: list[str], code: int) -> None:
    calls.verdict = verdict
    arguments = VALIDATE if verb == "validate" else ["run", "model=m.pt", "data=d.yaml", "targets=onnxruntime"]
    assert cli.main([*arguments, *extra]) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (ModelError("x"), 2),
        (DataError("x"), 2),
        (CalibrationError("x"), 2),
        (PlanError("x"), 2),
        (ArtifactError("x"), 2),
        (OutputError("x"), 2),
        (PermissionError("x"), 2),
        (OSError(28, "No space left on device"), 2),
        (TargetError("x"), 4),
        (MissingExtraError("litert", "litert", "litert_torch"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code_of_an_error(
    calls: Calls, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.error = error
    assert cli.main(["quantize", "model=m.pt", "data=d.yaml"]) == code
    shown = capsys.readouterr()
    assert not shown.out and "Traceback" not in shown.err
    assert shown.err.strip().splitlines()[-1].startswith("interrupted" if code == 130 else "error: ")
    if isinstance(error, MissingExtraError):
        assert 'pip install "yoloquant[litert]"' in shown.err


def test_a_bug_is_one_line_a_log_and_an_exit_code_of_its_own(
    calls: Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python's own code would be 1, which says that a gate failed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    calls.error = ZeroDivisionError("two\nlines")
    assert cli.main(VALIDATE) == 70
    shown = capsys.readouterr()
    (log,) = tmp_path.glob("yoloquant-*.log")
    assert shown.err.splitlines()[-1].startswith("error: a bug of yoloquant: ZeroDivisionError: two lines; ")
    assert str(log) in shown.err and "Traceback" not in shown.err and not shown.out
    assert "Traceback" in log.read_text() and "yoloquant validate model=m.pt" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantise", "model=m.pt"], "did you mean 'quantize'"),
        (["quantize", "data=d.yaml"], "model"),
        (["quantize", "model=m.pt"], "data"),
        (["quantize", "model=m.pt", "data=d.yaml", "scheem=x"], "did you mean 'scheme'"),
        (
            ["quantize", "model=m.pt", "data=d.yaml", "images=4"],
            "images='4' is not supported; allowed is a whole number from 8",
        ),
        (["export", "model=m.pt", "targets=opnvino"], "did you mean 'openvino'"),
        (["export", "model=m.pt", "archive=true"], "archive= cannot be used here: it is for bundles; pass bundle=true"),
        (["export", "model=m.pt", "golden_images=2"], "golden_images= cannot be used here"),
        (["validate", "model=m.pt"], "exports"),
        (["run"], "needs model=<checkpoint> and data=<data yaml>"),
        (["run", "missing.yaml"], "does not exist"),
        (["run", "model=m.pt", "data=d.yaml", "gate=missing"], "gate 'missing' does not exist"),
        (["run", "model=m.pt", "data=d.yaml", "targets=nowhere"], "target 'nowhere' is unknown"),
        (["run", "model=m.pt", "data=d.yaml", "bootstrap=3"], "bootstrap='3' is not supported"),
        (["run", "m.pt"], "needs model=<checkpoint> and data=<data yaml>"),
        (["run", "m.pt", "model=m.pt", "data=d.yaml"], "two models are given, 'm.pt' and model=m.pt"),
        (["run", "m.pt", "data=d.yaml", "batch=4"], "export_batch=<number>"),
        (["run", "m.pt", "data=d.yaml", "report=r"], "output=<folder> says where all results go, the report in it"),
        (["validate", "m.pt", "exports=e", "data=d.yaml", "report=r"], "output=<folder> says where the report goes"),
        (["run", "m.pt", "data=d.yaml", "bundle=true"], "bundles are made by yoloquant export: bundle=true"),
        (["quantize", "m.pt", "data=d.yaml", "limit=4"], "images=<number> says how many images calibrate"),
        (["quantize", "m.pt", "data=missing.yaml"], "data yaml 'missing.yaml' does not exist (looked in"),
        (["run", "m.pt", "data=missing.yaml"], "data yaml 'missing.yaml' does not exist (looked in"),
        (["run", "m.pt", "data=d.yaml", "validation_data=missing.yaml"], "data yaml 'missing.yaml' does not exist"),
        (["run", "recipe.yaml"], "data yaml 'missing.yaml' does not exist"),
        (["run", "none.pt", "data=d.yaml"], "model 'none.pt' does not exist"),
        (["train", "m.pt"], "training needs data=<data yaml or folder of images>"),
        (["train", "m.pt", "prune=0.3"], "training needs data=<data yaml or folder of images>"),
        (["analyze", "m.pt"], "'analyze' needs data="),
        (["search", "m.pt", "fidelity=0.9"], "'search' needs data="),
        (["tune", "m.pt"], "a study needs model=<checkpoint> and data=<data yaml>"),
        *(
            ([*words, "data=missing.yaml"], "data yaml 'missing.yaml' does not exist (looked in")
            for words in (
                ["train", "m.pt"],
                ["train", "m.pt", "prune=0.3"],
                ["analyze", "m.pt"],
                ["prune", "m.pt"],
                ["search", "m.pt", "fidelity=0.9"],
                ["tune", "m.pt", "space=ptq"],
            )
        ),
        *(
            ([verb, "none.pt", "data=d.yaml", *more], "model 'none.pt' does not exist (looked in")
            for verb, *more in (["train"], ["analyze"], ["prune"], ["search", "fidelity=0.9"], ["tune", "space=ptq"])
        ),
        (
            ["validate", "m.pt", "exports=e", "data=d.yaml", "images=4"],
            "limit=<number> says how many images are scored",
        ),
        (["quantize", "none.pt", "data=d.yaml"], "model 'none.pt' does not exist (looked in"),
        (["quantize", "folder.pt", "data=d.yaml"], "'folder.pt' does not exist: it is a folder that holds m_int8.pt"),
        (
            ["predict", "m.pt", "source=0"],
            "'m.pt' is a checkpoint and no export; make one of it with yoloquant export m.pt",
        ),
        (["val", "m.pt"], "did you mean 'validate'?"),
        (["detect", "predict", "m.pt"], "the model says its task, so leave the word out"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_wrong_usage(calls: Calls, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder.pt").mkdir()
    Path("folder.pt", "m_int8.pt").touch()
    Path("recipe.yaml").write_text("model: m.pt\ndata: missing.yaml\n")
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err and not shown.out
    assert not calls.seen, "refused before any work"


def test_run_takes_the_model_first_as_other_verbs_do(calls: Calls) -> None:
    assert cli.main(["run", "m.pt", "data=d.yaml", "targets=onnxruntime"]) == 0
    assert calls["quantize"]["data"] == "d.yaml" and calls.targets() == ["onnxruntime"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UsageError("no")])
def test_what_failed_leaves_no_empty_folder(calls: Calls, error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    calls.error = error
    for output in ("a/b", "mine/c", "mine"):
        assert cli.main(["quantize", "m.pt", "data=d.yaml", f"output={output}"]) in (2, 130)
    assert (tmp_path / "mine").is_dir() and not list((tmp_path / "mine").iterdir())
    assert not (tmp_path / "a").exists()


def test_no_arguments_print_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: yoloquant" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["quantize", "--help"], ["quantize", "a.pt", "-h"],
                                   ["help", "quantize"], ["predict", "--help"]])  # fmt: skip
def test_help_is_no_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert "usage: yoloquant" in shown.out and not shown.err
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.startswith("yoloquant ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=m.pt", "data=d.yaml", "imgsz=64,96", "scheme=litert,portable", "images=9", "seed=3", "output=o"],
        ["--model", "m.pt", "--data", "d.yaml", "--imgsz", "64,96", "--scheme", "litert,portable", "--images", "9",
         "--seed", "3", "--output", "o"],
        ["--model=m.pt", "data=d.yaml", "--imgsz=64x96", "scheme=litert,portable", "--images", "9", "seed=3",
         "--output=o"],
    ],
)  # fmt: skip
def test_quantize_means_the_same_in_every_spelling(calls: Calls, arguments: list[str]) -> None:
    assert cli.main(["quantize", *arguments, "calibration-split=test", "allow_scored=yes"]) == 0
    name, positional, given = calls.seen[0]
    assert (name, positional, given["data"]) == ("quantize", ("m.pt",), "d.yaml")
    assert given["scheme"] == ("litert", "portable")
    options = given["options"]
    assert options.imgsz == (64, 96) and not options.allow_unsafe
    chosen = options.calibration
    assert (chosen.images, chosen.seed, chosen.split, chosen.allow_scored) == (9, 3, "test", True)
    assert calls.seen[1][:2] == ("save", (Path("o/m_int8.pt"),))


@pytest.mark.parametrize(
    ("output", "saved"), [("o", "o/m_int8.pt"), ("o/best.pt", "o/best.pt"), ("other.pt", "other.pt")]
)
def test_output_of_quantize_is_a_folder_or_the_file(calls: Calls, output: str, saved: str) -> None:
    assert cli.main(["quantize", "model=m.pt", "data=d.yaml", f"output={output}"]) == 0
    assert calls.seen[1][:2] == ("save", (Path(saved),))


def test_quantize_never_writes_over_the_model(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["quantize", "model=m.pt", "data=d.yaml", "output=./m.pt"]) == 2
    assert "is the model itself; give another file, or a folder" in capsys.readouterr().err
    assert not calls.seen


@pytest.mark.parametrize(
    ("plans", "words"),
    [
        (("portable",), "all"),
        (("portable", "litert"), "all"),
        (("openvino",), "openvino"),
        (("openvino", "litert"), "litert,openvino"),
    ],
)
def test_the_hint_names_what_the_plans_serve(
    plans: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_next_export(Path("m_int8.pt"), plans)
    assert capsys.readouterr().out == f"next: yoloquant export m_int8.pt targets={words}\n"


def test_an_unwritable_output_is_refused_before_calibration(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    for verb in ("quantize", "export", "run", "search"):
        assert cli.main([verb, "model=m.pt", "data=d.yaml", "output=taken"]) == 2
    assert not calls.seen


RECIPE = """
model: m.pt
data: d.yaml
targets: [onnxruntime]
scheme: [portable]
imgsz: 64
output: out
calibration: {images: 16, seed: 5}
ranges: {score: minmax}
validation: {gate: strict, limit: 7, data: other.yaml}
"""


def test_run_a_recipe(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert cli.main(["run", "r.yaml"]) == 0
    options = calls["quantize"]["options"]
    assert (options.imgsz, options.calibration.images, options.calibration.seed) == (64, 16, 5)
    assert options.ranges.score.value == "minmax" and [s.name for s in calls["quantize"]["schemes"]] == ["portable"]
    assert calls.targets() == ["onnxruntime"] and calls["export"]["keep_going"] is True
    assert calls["export"]["folder"] == Path("out")
    given = calls["validate"]
    assert given["data"] == "images" and calls["scored"]["data"] == "other.yaml"
    assert given["options"] == calls["scored"]["options"]
    assert given["options"].gate == "strict" and given["options"].limit == 7
    assert given["options"].report == Path("out/report")


def test_arguments_override_the_recipe(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    code = cli.main(
        ["run", "recipe=r.yaml", "imgsz=96", "images=8", "gate=default", "targets=openvino", "split=minival"]
    )
    assert code == 0
    options = calls["quantize"]["options"]
    assert (options.imgsz, options.calibration.images, options.calibration.seed) == (96, 8, 5)
    assert options.calibration.scored_split == "minival"
    assert calls.targets() == ["openvino"]
    assert calls["validate"]["options"].gate == "default" and calls["validate"]["options"].limit == 7


def test_run_on_unlabelled_images(calls: Calls) -> None:
    assert cli.main(["run", "model=m.pt", "data=d.yaml", "source=photos", "targets=onnxruntime"]) == 0
    assert calls["scored"]["source"] == "photos" and calls["scored"]["data"] is None
    assert calls["validate"]["data"] == "images"
    assert calls["quantize"]["data"] == "d.yaml"


@pytest.mark.parametrize("content", ["modle: x", "model: m.pt\ndata: d\ncalibration: {imgs: 1}", "- a", "", "a: ["])
def test_bad_recipes(calls: Calls, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text(content)
    assert cli.main(["run", "r.yaml"]) == 2
    assert "r.yaml" in capsys.readouterr().err and not calls.seen


def test_validate_passes_everything_on(calls: Calls) -> None:
    arguments = "gate=strict split=test limit=3 threads=1 latency=no bootstrap=200 manifest=m.json output=rep"
    assert cli.main([*VALIDATE, *arguments.split()]) == 0
    _, positional, given = calls.seen[0]
    assert positional == ("m.pt", "out") and given["data"] == "d.yaml" and given["source"] is None
    assert given["options"] == ValidateOptions(
        gate="strict",
        split="test",
        limit=3,
        threads=1,
        latency=False,
        bootstrap=200,
        manifest="m.json",
        report=Path("rep"),
    )


def test_report_goes_beside_the_exports(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.onnx").touch()
    for exports in ("out", "out/a.onnx"):
        calls.seen.clear()
        cli.main(["validate", "model=m.pt", f"exports={exports}", "data=d.yaml"])
        assert calls["validate"]["options"].report == Path("out/report")


def test_export_of_a_plain_checkpoint_needs_data(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ptq, "quantize", calls.take("quantize", calls.saved))
    checkpoint(tmp_path / "plain.pt")
    assert cli.main(["export", "model=plain.pt", "targets=onnxruntime"]) == 2
    assert "plain checkpoint; pass data=" in capsys.readouterr().err
    assert cli.main(["export", "model=plain.pt", "targets=onnxruntime", "data=d.yaml", "images=8"]) == 0
    assert [n for n, *_ in calls.seen] == ["quantize", "export"]


def test_export_of_a_quantized_checkpoint(calls: Calls, tmp_path: Path) -> None:
    tiny_artifact().save(tmp_path / "q_int8.pt")
    assert cli.main(["export", "q_int8.pt", "target=onnx", "output=here"]) == 0
    (name, (artifact,), given) = calls.seen[0]
    assert name == "export" and artifact.plans == tiny_artifact().plans
    assert given["targets"] == ["onnxruntime"] and given["output"] == "here"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["imgsz=64"], "imgsz="),
        (["scheme=litert"], "scheme="),
        (["images=9", "seed=1"], "images=, seed="),
        (["range_score=mse"], "range_score="),
        (["data=d.yaml", "float_layers=model.0"], "float_layers="),
        (["data=d.yaml", "imgsz=64"], "imgsz="),
    ],
)
def test_what_a_quantized_checkpoint_leaves_nothing_to_do_for_is_refused(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    tiny_artifact().save(tmp_path / "q_int8.pt")
    assert cli.main(["export", "q_int8.pt", "targets=onnxruntime", *words]) == 2
    assert f"{named} cannot be used here: 'q_int8.pt' is quantized already" in capsys.readouterr().err
    assert not calls.seen


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["prune", "m.pt", "tolerance=0.1"], "sensitivity= names none"),
        (["prune", "m.pt", "permutation=channel"], "kind=2:4"),
        (["prune", "m.pt", "plan=p.json", "amount=0.3"], "plan= says already what goes"),
        (["analyze", "m.pt", "data=d", "weight_bits=4"], "kind=quant"),
        (["analyze", "m.pt", "data=d", "kind=quant", "ratios=0.5"], "kind=prune"),
        (["run", "model=m.pt", "data=d", "train=fast", "scheme=litert"], "the scheme that is trained"),
        (["run", "model=m.pt", "data=d", "train=fast", "float_layers=model.0"], "start from a checkpoint"),
    ],
)
def test_options_that_change_nothing_are_refused(
    calls: Calls, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert cli.main(words) == 2
    assert reason in capsys.readouterr().err and not calls.seen


def test_plan_prints_or_saves(calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "model=m.pt", "scheme=litert", "imgsz=64"]) == 0
    assert calls.seen[0] == ("plan", ("m.pt",), {"scheme": "litert", "imgsz": 64})
    assert capsys.readouterr().out.strip() == str(tiny_artifact().plans["portable"]).strip()
    assert cli.main(["plan", "model=m.pt", "output=p.json"]) == 0
    assert Plan.from_json((tmp_path / "p.json").read_text()) == tiny_artifact().plans["portable"]
    json.loads((tmp_path / "p.json").read_text())
    assert cli.main(["plan", "model=m.pt", "output=p.json/x"]) == 2


def test_targets_lists_every_target(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from yoloquant import targets

    assert cli.main(["targets"]) == 0
    shown = capsys.readouterr().out
    for name in targets.names():
        assert name in shown and all(d.name in shown for d in targets.get(name).devices)
    assert "in its graph nms=, batch=, dynamic=" in shown
    monkeypatch.setattr(type(targets.get("openvino")), "missing", classmethod(lambda cls: ("openvino",)))
    assert cli.main(["targets"]) == 0
    shown = capsys.readouterr().out
    assert "missing openvino" in shown and 'pip install "yoloquant[openvino]"' in shown


def test_failed_exports_are_shown(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = ExportResult(tmp_path, (), {"litert": "no luck"})
    monkeypatch.setattr(pipeline, "export", lambda *a, **k: outcome)
    calls.verdict = Verdict.ERROR
    assert cli.main(["run", "model=m.pt", "data=d.yaml", "targets=litert"]) == 4
    assert "failed litert: no luck" in capsys.readouterr().err


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, 1)])
def test_a_search_saves_what_meets_the_budget(
    calls: Calls,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    met: bool,
    code: int,
) -> None:
    saved = SimpleNamespace(save=lambda path: path)
    found = SimpleNamespace(
        met=met, scheme="tensorrt", summary=lambda: "the summary", to_dict=lambda: {"met": met}, artifact=saved
    )
    monkeypatch.setattr(api, "search", calls.take("search", lambda: found))
    assert cli.main(["search", "m.pt", "data=d.yaml", "scheme=tensorrt", "fidelity=0.9", "share=0.03"]) == code
    options = calls["search"]["options"]
    assert (options.scheme, options.fidelity, options.share, options.map_drop) == ("tensorrt", 0.9, 0.03, None)
    assert json.loads((tmp_path / "m_float_layers.json").read_text()) == {"met": met}
    printed = capsys.readouterr().out
    assert "the summary" in printed and ("saved m_int8.pt" in printed) is met


def test_a_resumed_training_names_no_missing_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("last.pt").touch()
    result = SimpleNamespace(quantized=False, best="best.pt", score=0.5, score_calibrated=0.4)
    monkeypatch.setattr(api, "train", lambda *args, **more: result)
    assert cli.main(["train", "last.pt", "resume=true", "prune=0.5"]) == 0
    said = capsys.readouterr().out
    assert "yoloquant train best.pt data=<data yaml> preset=fast" in said and "None" not in said
