"""What was found in images is taken again by the next validation, and figures are the same bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from core_models import tiny_artifact, write_images

from yoloquant import ExportResult, ValidateOptions, api
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import DataError
from yoloquant.evaluation.judged_models import PICTURES
from yoloquant.evaluation.kept_predictions import of_export
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.predictions.results_file import ResultRow, ResultsFile, ResultsHeader, write_results
from yoloquant.runtime.backends.base import Backend
from yoloquant.runtime.core.detections import Detections
from yoloquant.summarized import plain

OPTIONS = ValidateOptions(threads=1, latency=False, memory=False, bootstrap=100)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return api.export(tiny_artifact(), targets="onnxruntime,openvino", output=tmp_path_factory.mktemp("exports"))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The kind of everything that inferred."""
    done: list[str] = []
    for kind in (TorchRunner, Backend):
        infer = kind.infer

        def counted(self: Any, image: Any, infer: Any = infer, kind: Any = kind) -> Any:
            done.append(kind.__name__)
            return infer(self, image)

        monkeypatch.setattr(kind, "infer", counted)
    yield done


def figures(result: Any) -> Any:
    found = plain(result)
    found.pop("seconds")  # the one thing that is the run's own
    found["environment"].pop("peak_memory_bytes", None)
    return found


def test_the_second_validation_runs_nothing_and_says_the_same(
    tmp_path: Path, exported: ExportResult, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, options = write_images(tmp_path / "set"), replace(OPTIONS, cache=str(tmp_path / "store"))
    reads, read = [], ValidationSet.read
    monkeypatch.setattr(ValidationSet, "read", lambda self, index: reads.append(index) or read(self, index))  # type: ignore[func-returns-value]
    without = api.validate(tiny_artifact(), exported, data=data, options=replace(OPTIONS, cache=False))
    once = len(ran)
    first = api.validate(tiny_artifact(), exported, data=data, options=options)
    assert len(ran) == 2 * once > 0
    reads.clear()
    second = api.validate(tiny_artifact(), exported, data=data, options=replace(options, report=tmp_path / "report"))
    assert len(ran) == 2 * once and len(reads) == PICTURES, "nothing was run, and nothing decoded for it"
    assert figures(first) == figures(second) == figures(without)
    assert (tmp_path / "report" / "results.npz").is_file()
    one = replace(exported, exports=exported.exports[:1])
    api.validate(tiny_artifact(), one, data=data, options=replace(options, gate="accuracy", conf=0.4))
    assert len(ran) == 2 * once, "another gate and another confidence judge the same predictions"


def test_whatever_decides_predictions_runs_the_models(tmp_path: Path, exported: ExportResult, ran: list[str]) -> None:
    data, options = write_images(tmp_path / "set"), replace(OPTIONS, cache=str(tmp_path / "store"))

    def runs(model: Any = None, what: Any = exported, **changes: Any) -> list[str]:
        ran.clear()
        api.validate(model or tiny_artifact(), what, data=data, options=replace(options, **changes))
        return sorted(set(ran))

    both = sorted({TorchRunner.__name__, Backend.__name__})
    assert runs() == both and runs() == []
    assert runs(limit=3) == both and runs(threads=2) == both
    image = min((tmp_path / "set" / "images" / "val").iterdir())
    cv2.imwrite(str(image), ~np.asarray(cv2.imread(str(image))))
    assert runs() == both
    labels = tmp_path / "set" / "labels" / "val" / f"{image.stem}.txt"
    labels.write_text("2 0.5 0.5 0.3 0.3\n")
    assert runs() == [], "labels change scores and no predictions"
    again = api.export(tiny_artifact(), targets="onnxruntime:fp32", output=tmp_path / "more")
    assert runs(what=again) == [Backend.__name__], "the float model's are known"


def test_what_was_noted_of_a_file_decides_how_it_is_opened(exported: ExportResult) -> None:
    export = replace(exported.exports[0], target="qnn", metadata={"qnn": {"soc": "8gen3"}})
    known = of_export(export, "same file")
    assert known is not None and known == of_export(
        replace(export, metadata={**export.metadata, "matched_conf": 0.2, "matched_conf_per_class": [0.2]}), "same file"
    ), "what a validation measured decides nothing"
    for other in (
        replace(export, metadata={"qnn": {"soc": "8elite"}}),
        replace(export, metadata={"qnn": {"soc": "8gen3", "pairwise": True}}),
        replace(export, precision="w8a16"),
    ):
        assert of_export(other, "same file") != known


@pytest.mark.parametrize("sizes", [((4, 4),), ((4, 4), (0, 4)), ((4, 4), (4, 1 << 30)), ((4, 4), (4,))])
def test_sizes_that_no_images_have_are_refused(tmp_path: Path, sizes: Any) -> None:
    path, info = tmp_path / "results.npz", tiny_artifact().info
    found = [Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))] * 2
    header = ResultsHeader(info, (("a", "1"), ("b", "2")), (ResultRow("m"),), sizes=((4, 6), (8, 9)))
    write_results(path, header, {"m": found})
    assert ResultsFile(path).header == header
    write_results(path, replace(header, sizes=sizes), {"m": found})
    with pytest.raises(DataError, match="damaged"):
        ResultsFile(path)


def test_compare_shares_them(tmp_path: Path, exported: ExportResult, ran: list[str]) -> None:
    data, store = write_images(tmp_path / "set"), str(tmp_path / "store")
    api.validate(tiny_artifact(), exported, data=data, options=replace(OPTIONS, cache=store))
    ran.clear()
    old, new = (e.path for e in exported.exports)
    keys: dict[str, Any] = {"data": data, "threads": 1, "latency": False, "bootstrap": 100}
    (known,) = api.compare(old, new, cache=store, **keys)
    assert not ran
    (run,) = api.compare(old, new, cache=False, **keys)
    assert ran and figures(known.result) == figures(run.result)


def test_what_was_kept_damaged_is_found_anew(tmp_path: Path, exported: ExportResult, ran: list[str]) -> None:
    data, options = write_images(tmp_path / "set"), replace(OPTIONS, cache=str(tmp_path / "store"))
    first = api.validate(tiny_artifact(), exported, data=data, options=options)
    ran.clear()
    for file in (tmp_path / "store").glob("predictions-*/results.npz"):
        file.write_bytes(file.read_bytes()[:-9])
    second = api.validate(tiny_artifact(), exported, data=data, options=options)
    assert set(ran) == {TorchRunner.__name__, Backend.__name__} and figures(first) == figures(second)


def test_sizes_in_a_file_that_somebody_gives_are_not_believed(tmp_path: Path) -> None:
    """They would decide where labels lie, and nothing decodes an image to see that they are right."""
    path, data = tmp_path / "results.npz", ValidationSet.from_yaml(write_images(tmp_path / "set")).take(2)
    images = tuple((image.path.name, image.sha256) for image in data.images)
    found = [Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))] * 2
    header = ResultsHeader(tiny_artifact().info, images, (ResultRow("m"),), sizes=((4, 6), (8, 9)))
    write_results(path, header, {"m": found})
    assert [ResultsFile(path).model("m", data, sized=sized).size(1) for sized in (False, True)] == [None, (8, 9)]
