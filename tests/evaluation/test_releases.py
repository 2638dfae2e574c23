"""Release against release, from recorded results: figures, rows, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from validation_fakes import NAMES, FakeRunner, label_rows, write_dataset

from yoloquant import api
from yoloquant.cli.main import main
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import ArtifactError, DataError, UsageError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.keep_results import keep_results
from yoloquant.evaluation.results import RESULTS
from yoloquant.evaluation.stored_baseline import stored_baseline, stored_model
from yoloquant.evaluation.verdict import ArtifactInfo
from yoloquant.predictions.results_file import ResultsFile, is_results_file
from yoloquant.runtime.core.letterbox import place
from yoloquant.types import ModelInfo, Task, Verdict

INFO = ModelInfo(Task.DETECT, NAMES, (64, 64))
GATE = {"name": "g", "limits": {"map_drop": {"limit": 0.02, "rule": "likely"}}, "min_images": 1, "baseline_map": 0}


@pytest.fixture(scope="module")
def yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("set"), count=12)


@pytest.fixture(scope="module")
def data(yaml: Path) -> ValidationSet:
    return ValidationSet.from_yaml(yaml)


def rows(data: ValidationSet, seed: int, spread: float = 1.0) -> list[np.ndarray]:
    where, rng = place((48, 64), (64, 64)), np.random.default_rng(seed)
    found = label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images])
    for each in found:
        each[:, :4] += rng.uniform(-spread, spread, (len(each), 4))
        each[:, 4] = rng.uniform(0.3, 0.95, len(each))
    return found


def run(data: ValidationSet, **found: list[np.ndarray]) -> Evaluation:
    runners = {name: FakeRunner(each) for name, each in found.items()}
    return evaluate(runners, data, EvaluateOptions(baseline=next(iter(found)), warmup=0))


def kept(folder: Path, data: ValidationSet, weights: str = "", **found: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {name: ArtifactInfo(path=f"{name}.onnx", size_bytes=100, sha256="ab", weights=weights) for name in found}
    made = {"model": "a.pt", "data": data.source, "split": data.split}
    path = keep_results(folder, run(data, **found), facts, INFO, made)
    assert path is not None
    return path


def test_kept_results_give_the_same_figures_bit_by_bit(tmp_path: Path, data: ValidationSet) -> None:
    before, after = rows(data, 0), rows(data, 1, 3.0)
    file = ResultsFile(kept(tmp_path, data, fp32=before, openvino=after))
    assert file.names == ("fp32", "openvino") and file.row("openvino").path == "openvino.onnx"
    direct = Comparer(run(data, fp32=before, openvino=after), BootstrapOptions(replicates=100)).compare("openvino")
    recorded = {name: file.model(name, data) for name in file.names}
    again = evaluate({}, data, EvaluateOptions(), recorded=recorded)
    assert Comparer(again, BootstrapOptions(replicates=100)).compare("openvino") == direct


def test_fewer_images_and_another_input_size_are_found(tmp_path: Path, data: ValidationSet) -> None:
    file = ResultsFile(kept(tmp_path, data, fp32=rows(data, 0)))
    part = replace(data, images=data.images[4:7])
    model = file.model("fp32", part)
    small, large = place((48, 64), (64, 64)), place((48, 64), (128, 128))
    whole = file.model("fp32", data)
    for index in range(3):
        assert np.array_equal(model.on(index, small).xyxy, whole.on(index + 4, small).xyxy)
        got, expected = large.to_original(model.on(index, large).xyxy), small.to_original(model.on(index, small).xyxy)
        assert got == pytest.approx(expected, abs=0.01)


def test_results_of_other_images_or_damaged_are_refused(tmp_path: Path, data: ValidationSet) -> None:
    path = kept(tmp_path / "a", data, fp32=rows(data, 0))
    other = ValidationSet.from_yaml(write_dataset(tmp_path / "other", count=12, seed=5))
    with pytest.raises(DataError, match="are of other images: 12 of 12"):
        ResultsFile(path).model("fp32", other)
    content = dict(np.load(path))
    for change in ({"0/count": content["0/count"] + 1}, {"0/xyxy": content["0/xyxy"][:-1]}):
        np.savez(tmp_path / "b.npz", **{**content, **change})
        with pytest.raises(DataError, match="are damaged"):
            ResultsFile(tmp_path / "b.npz").model("fp32", data)
    stated = json.loads(str(content["header"]))
    for header in ({**stated, "format": 9}, {**stated, "images": 3}, {}):
        np.savez(tmp_path / "c.npz", **{**content, "header": np.array(json.dumps(header))})
        with pytest.raises(DataError):
            ResultsFile(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes(b"nothing")
    assert is_results_file(path) and not is_results_file(tmp_path / "d.npz")


def test_a_release_that_is_worse_fails_and_says_what_changed(tmp_path: Path, data: ValidationSet, yaml: Path) -> None:
    before, after = rows(data, 0), rows(data, 1, 6.0)
    after[3] = after[3][:0]
    after[5] = np.concatenate([after[5], [[50, 50, 60, 60, 0.9, 2]]])
    kept(tmp_path / "v1", data, fp32=before, openvino=before)
    kept(tmp_path / "v2", data, fp32=before, openvino=after)
    found = api.compare(
        tmp_path / "v1", tmp_path / "v2", data=yaml, gate=GATE, bootstrap=200, output=tmp_path / "report"
    )
    result = found[0].result
    assert [each.name for each in found] == ["openvino"] and result.verdict is Verdict.FAIL
    assert (result.baseline.target, result.targets[0].target) == ("old", "new")
    comparison = result.targets[0].comparison
    assert comparison is not None and comparison.map_drop is not None and comparison.map_drop.low > 0.02
    appeared, vanished = result.notes
    assert "appeared: " in appeared and "bird" in appeared and "vanished: " in vanished
    page = (tmp_path / "report" / "report.html").read_text()
    assert "FP32" not in page and "old release" in page
    assert (tmp_path / "report" / RESULTS).is_file()
    same = api.compare(tmp_path / "v1", tmp_path / "v1", data=yaml, gate=GATE, bootstrap=200)
    assert same[0].result.verdict is Verdict.PASS and same[0].folder is None


def test_releases_of_one_model_must_find_the_same_things(tmp_path: Path, data: ValidationSet, yaml: Path) -> None:
    """Other boxes of the same quality lose no mAP; of one model they are a fault, of two they may well be better."""
    before, after = rows(data, 0), rows(data, 1)
    for each in before[::2] + after[1::2]:
        each[:, 4] = 0.2  # of every label one of both is sure
    gate = {**GATE, "limits": {"map_drop": 0.25, "same_model_fidelity": {"limit": 0.9, "rule": "likely"}}}
    for folder, weights, found in (("v1", "w", before), ("v2", "w", after), ("v3", "other", after), ("v4", "", after)):
        kept(tmp_path / folder, data, weights, fp32=found)
    outcome = {}
    for new in ("v2", "v3", "v4"):
        arguments = {"data": yaml, "gate": gate, "bootstrap": 200, "output": tmp_path / f"report_{new}"}
        (found,) = api.compare(tmp_path / "v1", tmp_path / new, **arguments)
        (target,) = found.result.targets
        assert target.notes[0] == found.conclusion
        outcome[new] = {check.name: check for check in target.checks}, found.conclusion
    check, text = outcome["v2"][0]["same_model_fidelity"], outcome["v2"][1]
    assert check.verdict is Verdict.FAIL and "fidelity to old release from the same weights is 0." in check.message
    assert text == "they differ by more than the gate allows: fidelity to old release from the same weights"
    assert text in (tmp_path / "report_v2" / "report.md").read_text()
    for new in ("v3", "v4"):
        unknown = outcome[new][0]["same_model_fidelity"]
        assert unknown.verdict is Verdict.INCONCLUSIVE and unknown.value is None
        assert "it is not known that two releases quantize the same float weights" in unknown.message


def test_two_files_of_predictions_are_compared_by_the_names_of_the_data(
    tmp_path: Path, data: ValidationSet, yaml: Path
) -> None:
    where = place((48, 64), (64, 64))
    for name, seed in (("old", 0), ("new", 1)):
        lines = [
            {
                "file": image.path.name,
                "xyxy": where.to_original(each[:, :4]).tolist(),
                "confidence": each[:, 4].tolist(),
                "class_id": each[:, 5].tolist(),
            }
            for image, each in zip(data.images, rows(data, seed), strict=True)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (found,) = api.compare(
        tmp_path / "old.jsonl", tmp_path / "new.jsonl", data=yaml, gate=GATE, bootstrap=100, imgsz=64
    )
    direct = Comparer(run(data, old=rows(data, 0), new=rows(data, 1)), BootstrapOptions(replicates=100))
    accuracy = direct.accuracy("new")
    got = found.result.targets[0].accuracy
    assert accuracy is not None and got is not None
    assert got.map50_95 == pytest.approx(accuracy.map50_95, abs=1e-3)


@pytest.mark.parametrize(
    ("suffix", "key", "word"), [(".json", "segmentation", "masks"), (".jsonl", "keypoints", "keypoints")]
)
def test_predictions_of_more_than_boxes_are_refused_where_no_model_is_named(
    tmp_path: Path, data: ValidationSet, yaml: Path, suffix: str, key: str, word: str
) -> None:
    """Boxes alone would be compared, and spoiled masks would pass."""
    entry = {"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5, key: [[1, 2]]}
    line = {"file": "000.png", "xyxy": [[1, 1, 5, 5]], "confidence": [0.5], "class_id": [0], key: [[[1, 2, 3]]]}
    (tmp_path / f"a{suffix}").write_text(json.dumps([entry] if suffix == ".json" else line))
    with pytest.raises(UsageError, match=f"also hold {word}, and nothing says of what model"):
        api.compare(tmp_path / f"a{suffix}", tmp_path / f"a{suffix}", data=yaml, gate=GATE, allow_missing=True)
    del entry[key], line[key]
    (tmp_path / f"a{suffix}").write_text(json.dumps([entry] if suffix == ".json" else line))
    assert api.compare(
        tmp_path / f"a{suffix}",
        tmp_path / f"a{suffix}",
        data=yaml,
        gate=GATE,
        allow_missing=True,
        imgsz=64,
        bootstrap=100,
    )


def test_rows_are_matched_by_name(tmp_path: Path, data: ValidationSet, yaml: Path) -> None:
    before = rows(data, 0)
    kept(tmp_path / "v1", data, fp32=before, openvino=before, litert=before)
    kept(tmp_path / "v2", data, fp32=before, openvino=before, onnxruntime=before)
    arguments = {"data": yaml, "gate": GATE, "bootstrap": 100}
    assert [e.name for e in api.compare(tmp_path / "v1", tmp_path / "v2", **arguments)] == ["openvino"]
    with pytest.raises(UsageError, match="nothing is called litert on both sides: old has openvino, litert"):
        api.compare(tmp_path / "v1", tmp_path / "v2", only="litert", **arguments)
    with pytest.raises(UsageError, match="give either data="):
        api.compare(tmp_path / "v1", tmp_path / "v2", source=tmp_path, **arguments)
    del arguments["data"]
    assert api.compare(tmp_path / "v1", tmp_path / "v2", **arguments)[0].result.labels == data.boxes, "as recorded"
    other = replace(INFO, names=("a", "b", "c"))
    (tmp_path / "v3").mkdir()
    keep_results(tmp_path / "v3", run(data, fp32=before), {}, other, {})
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(UsageError, match=r"give data=<data yaml> \(labelled\) or source="):
        api.compare(tmp_path / "a.jsonl", tmp_path / "a.jsonl", **arguments)
    with pytest.raises(UsageError, match="compare releases of one model"):
        api.compare(kept(tmp_path / "one", data, fp32=before), tmp_path / "v3", **arguments)


def test_several_pairs_have_one_summary(tmp_path: Path, data: ValidationSet, yaml: Path) -> None:
    """Where a pipeline looks for one pair's, it finds that of all."""
    before, after, out = rows(data, 0), rows(data, 1, 6.0), tmp_path / "out"
    kept(tmp_path / "v1", data, fp32=before, openvino=before, litert=before)
    kept(tmp_path / "v2", data, fp32=before, openvino=after, litert=before)
    arguments = {"data": yaml, "gate": GATE, "bootstrap": 100, "output": out}
    found = api.compare(tmp_path / "v1", tmp_path / "v2", **arguments)
    assert [each.folder for each in found] == [out / "openvino", out / "litert"]
    text = (out / "report.md").read_text()
    for each in found:
        assert f"## {each.name}\n\n{(each.folder / 'report.md').read_text()}" in text
    suites = ET.fromstring((out / "junit.xml").read_text())
    assert [suite.get("name") for suite in suites] == ["openvino: new", "litert: new"]
    assert suites.get("failures") == "1"
    with pytest.raises(UsageError):  # yesterday's summary is gone
        api.compare(tmp_path / "v1", tmp_path / "v2", only="onnxruntime", **arguments)
    assert not (out / "report.md").exists() and 'errors="1"' in (out / "junit.xml").read_text()


def test_reports_of_fewer_images_are_compared_on_what_both_hold(
    tmp_path: Path, data: ValidationSet, yaml: Path
) -> None:
    """As ``limit=`` leaves them; the whole set would be refused."""
    few = replace(data, images=data.images[:7])
    kept(tmp_path / "v1", data, fp32=rows(data, 0))
    kept(tmp_path / "v2", few, fp32=rows(data, 1)[:7])
    sides = {"gate": GATE, "bootstrap": 100}
    for old, new in (("v1", "v2"), ("v2", "v1")):
        (found,) = api.compare(tmp_path / old, tmp_path / new, **sides)
        assert found.result.images == 7
    assert api.compare(tmp_path / "v1", tmp_path / "v2", limit=5, **sides)[0].result.images == 5
    with pytest.raises(DataError, match=r"5 of 12 .* score fewer with limit=7, or record it again"):
        api.compare(tmp_path / "v1", tmp_path / "v2", data=yaml, **sides)


def test_another_input_size_is_told(tmp_path: Path, data: ValidationSet, yaml: Path) -> None:
    for name, side in (("v1", 64), ("v2", 128)):
        (tmp_path / name).mkdir()
        keep_results(tmp_path / name, run(data, fp32=rows(data, 0)), {}, replace(INFO, imgsz=(side, side)), {})
    notes = {}
    for new in ("v1", "v2"):
        (found,) = api.compare(tmp_path / "v1", tmp_path / new, data=yaml, gate=GATE, bootstrap=100)
        notes[new] = found.result.notes
    text = "the old release's input is 64 x 64, the new one's 128 x 128 pixels"
    assert text in notes["v2"] and not any("input" in note for note in notes["v1"])


def test_the_console_names_every_pair(
    tmp_path: Path, data: ValidationSet, yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows(data, 0)
    kept(tmp_path / "v1", data, fp32=before, openvino=before, litert=before)
    words = [f"old={tmp_path / 'v1'}", f"new={tmp_path / 'v1'}", f"data={yaml}", f"output={tmp_path / 'out'}"]
    assert main(["compare", *words, "bootstrap=100"]) == 3, "too few images"
    told = capsys.readouterr().out
    assert 0 <= told.find("== openvino ==") < told.find("== litert ==")
    assert main(["compare", *words, "bootstrap=100", "only=litert"]) == 3
    assert "==" not in capsys.readouterr().out


def test_a_row_that_the_new_release_lacks_is_told(
    tmp_path: Path, data: ValidationSet, yaml: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = rows(data, 0)
    kept(tmp_path / "v1", data, fp32=before, openvino=before, litert=before)
    kept(tmp_path / "v2", data, fp32=before, openvino=before, onnxruntime=before)
    arguments = {"data": yaml, "gate": GATE, "bootstrap": 100}
    (found,) = api.compare(tmp_path / "v1", tmp_path / "v2", **arguments)
    text = "the new release lacks litert, which the old one has; only= names what is compared"
    assert text in found.result.notes and text in caplog.text
    (found,) = api.compare(tmp_path / "v1", tmp_path / "v2", only="openvino", **arguments)
    assert not any("lacks" in note for note in found.result.notes), "it was said what is compared"


def test_the_baseline_may_be_results_of_an_earlier_report(tmp_path: Path, data: ValidationSet) -> None:
    path = kept(tmp_path, data, fp32=rows(data, 0), openvino=rows(data, 1))
    assert stored_baseline("a.pt") is None and stored_baseline(None) is None
    with pytest.raises(DataError, match="does not exist"):
        stored_baseline(tmp_path / "no.npz")
    file = stored_baseline(path)
    assert file is not None
    model, notes = stored_model(file, data, INFO, "ab", allow_stale=False)
    assert model.info == INFO and notes == ("the baseline's results were recorded earlier, in 'results.npz'",)
    with pytest.raises(ArtifactError, match="allow_stale=true"):
        stored_model(file, data, INFO, "cd", allow_stale=False)
    assert "accepted by allow_stale" in stored_model(file, data, INFO, "cd", allow_stale=True)[1][1]
    with pytest.raises(ArtifactError, match="of 3 classes, this one"):
        stored_model(file, data, replace(INFO, names=("a",)), "ab", allow_stale=False)


@pytest.mark.parametrize("imgsz", [(32, 32), (64, 96), (128, 64)])
@pytest.mark.parametrize("allow_stale", [False, True])
def test_a_baseline_of_another_input_size_is_refused(
    tmp_path: Path, data: ValidationSet, imgsz: tuple[int, int], allow_stale: bool
) -> None:
    """FP32 finds less in smaller images, so that an artifact that loses as much would pass."""
    file = stored_baseline(kept(tmp_path, data, fp32=rows(data, 0), openvino=rows(data, 1)))
    assert file is not None
    judged = replace(INFO, imgsz=imgsz)
    with pytest.raises(ArtifactError, match=f"input of 64 x 64 pixels, .* has {imgsz[0]} x {imgsz[1]}; record it anew"):
        stored_model(file, data, judged, "ab", allow_stale=allow_stale)
    assert stored_model(file, data, INFO, "ab", allow_stale=allow_stale)[0].info == INFO


def test_results_are_not_read_from_the_report_that_is_written(tmp_path: Path, data: ValidationSet, yaml: Path) -> None:
    """They would be removed with the old report before anything read them."""
    before = rows(data, 0)
    old, new = (kept(tmp_path / name, data, fp32=before, openvino=before) for name in ("v1", "v2"))
    with pytest.raises(UsageError, match="whose place the new one takes"):
        api.compare(old, new, data=yaml, gate=GATE, bootstrap=100, output=tmp_path / "v1")
    with pytest.raises(UsageError, match="whose place the new one takes"):
        api.validate("any.pt", tmp_path, data=yaml, baseline=new, output=tmp_path / "v2")
    assert old.is_file() and new.is_file()
    (found,) = api.compare(old, new, data=yaml, gate=GATE, bootstrap=100, output=tmp_path / "v3")
    assert found.folder == tmp_path / "v3" and (tmp_path / "v3" / "results.npz").is_file()
