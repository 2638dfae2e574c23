from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from live_fakes import ListSource, StuckSource, grey_detector, grey_picture, pictured
from signalled import predict_to_files, signalled

from yoloquant.runtime.apps import predict as module
from yoloquant.runtime.apps.pipeline import Ending
from yoloquant.runtime.apps.predict import KEYS, PredictOptions, main, predict
from yoloquant.runtime.apps.running import RunnableModel, Running
from yoloquant.runtime.apps.settings import VerbSettings
from yoloquant.runtime.errors import DataError, OutputError, SourceError, UsageError
from yoloquant.runtime.io.writers import VideoFile

GREYS = [10 + 4 * i for i in range(12)]


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_display", lambda: False)


def images(folder: Path, values: list[int] = GREYS) -> Path:
    folder.mkdir()
    for index, value in enumerate(values):
        cv2.imwrite(str(folder / f"{index:02d}.png"), grey_picture(value))
    return folder


def parsed(**arguments: str) -> PredictOptions:
    return PredictOptions.parse(VerbSettings(arguments, KEYS, "predict"))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_to_json_lines_video_and_images_at_once(tmp_path: Path, workers: int) -> None:
    source, out = images(tmp_path / "in"), tmp_path / "out"
    labels = tmp_path / "labels.txt"
    labels.write_text("katze\nhund\nvogel\n")
    options = parsed(source=str(source), output=f"{out}/a.jsonl,{out}/b.mp4,{out}/pictures", labels=str(labels))
    summary = predict([grey_detector() for _ in range(workers)], options)
    found = lines(out / "a.jsonl")
    assert [line["index"] for line in found] == list(range(12))
    assert [pictured(np.array(line["xyxy"])) for line in found] == GREYS
    assert {name for line in found for name in line["names"]} == {"hund"}  # type: ignore[attr-defined]
    assert cv2.VideoCapture(str(out / "b.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 12
    drawn = cv2.imread(str(out / "pictures" / "11.png"))
    assert (drawn != GREYS[-1]).any(), "boxes are drawn"
    assert cv2.imread(str(source / "11.png")).min() == GREYS[-1], "the source is left alone"
    assert (summary.outcome.frames, summary.found, summary.outcome.ending) == (12, {"hund": 12}, Ending.END)
    assert set(summary.latency_ms) == {"p50", "p90", "p99"} and summary.fps > 0
    assert len(summary.outputs) == 3 and "12 hund" in str(summary)


def test_without_output_and_screen_lines_are_said(tmp_path: Path) -> None:
    said: list[str] = []
    summary = predict(grey_detector(), parsed(source=str(images(tmp_path / "in")), limit="3"), said.append)
    assert [json.loads(text)["file"] for text in said] == ["00.png", "01.png", "02.png"]
    assert summary.said_lines and summary.outcome.ending is Ending.LIMIT


def test_nothing_is_drawn_where_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Painter", None)
    predict(grey_detector(), parsed(source=str(images(tmp_path / "in")), output=str(tmp_path / "a.jsonl")))


def test_the_overlay_can_be_left_out(tmp_path: Path) -> None:
    source = images(tmp_path / "in", [0])
    for name in ("true", "false"):
        predict(grey_detector(), parsed(source=str(source), output=str(tmp_path / name), overlay=name))
    assert cv2.imread(str(tmp_path / "true" / "00.png")).max() > 200
    assert cv2.imread(str(tmp_path / "false" / "00.png"))[:5, 20:].max() < 200


def use(monkeypatch: pytest.MonkeyPatch, source: ListSource) -> None:
    monkeypatch.setattr(module, "open_source", lambda text, options: source)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_outputs(tmp_path: Path, number: int, workers: int) -> None:
    ending, frames, restored = signalled(number, predict_to_files, tmp_path, workers)
    assert (ending, frames) == ("STOPPED", len(lines(tmp_path / "a.jsonl"))) and frames > 0 and restored
    assert cv2.VideoCapture(str(tmp_path / "b.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == frames


def test_a_stalled_source_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, StuckSource([grey_picture(9)] * 5, stall_timeout=0.3))
    summary = predict(grey_detector(), parsed(source="x", output=f"{tmp_path}/a.jsonl"))
    assert summary.outcome.ending is Ending.LOST and "stalled" in summary.outcome.error
    assert len(lines(tmp_path / "a.jsonl")) == summary.outcome.frames
    with pytest.raises(SourceError, match="stalled"):
        module.report(summary, lambda text: None)


def test_a_full_disk_ends_the_run_and_keeps_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ListSource([grey_picture(9)] * 5000)
    use(monkeypatch, source)

    def check(self: VideoFile) -> None:
        if self._frames >= 16:
            raise OutputError("the disk is full")

    monkeypatch.setattr(VideoFile, "_check_space", check)
    with pytest.raises(OutputError, match="disk is full"):
        predict(grey_detector(), parsed(source="x", output=f"{tmp_path}/a.jsonl,{tmp_path}/b.avi"))
    assert cv2.VideoCapture(str(tmp_path / "b.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 16
    assert len(lines(tmp_path / "a.jsonl")) == 17 and source.closed


def test_an_output_that_cannot_be_finished_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(self: VideoFile) -> None:
        raise OutputError(f"{self._path.name} is damaged")

    monkeypatch.setattr(VideoFile, "close", damaged)
    use(monkeypatch, ListSource([grey_picture(9)]))
    with pytest.raises(OutputError, match=r"a\.avi is damaged"):
        predict(grey_detector(), parsed(source="x", output=f"{tmp_path}/a.avi,{tmp_path}/b.avi"))
    assert caplog.messages == ["b.avi is damaged"]


@pytest.mark.parametrize("output", ["in", "in/../in"])
@pytest.mark.parametrize("source", ["in", "in/00.png"])
def test_an_output_never_replaces_the_source(tmp_path: Path, source: str, output: str) -> None:
    images(tmp_path / "in", [5])
    with pytest.raises(UsageError, match="would replace"):
        predict(grey_detector(), parsed(source=str(tmp_path / source), output=str(tmp_path / output)))
    assert np.array_equal(cv2.imread(str(tmp_path / "in" / "00.png")), grey_picture(5))


def test_a_video_is_not_written_over_itself(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    writer.write(grey_picture(5))
    writer.release()
    content = (tmp_path / "v.avi").read_bytes()
    with pytest.raises(UsageError, match="would replace"):
        predict(grey_detector(), parsed(source=str(tmp_path / "v.avi"), output=str(tmp_path / "v.avi")))
    assert (tmp_path / "v.avi").read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sorce": "0"}, "did you mean 'source'"),
        ({}, "needs source="),
        ({"source": "0", "size": "wide"}, "widthxheight"),
        ({"source": "0", "timeout": "-1"}, "number from 0.1"),
        ({"source": "0", "timeout": "nan"}, "number from 0.1"),
        ({"source": "0", "limit": "0"}, "whole number from 1"),
        ({"source": "0", "workers": "0"}, "whole number from 1"),
        ({"source": "0", "show": "perhaps"}, "true and false"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parsed(**arguments)


def test_arguments_are_read() -> None:
    options = parsed(source="0", size="1280x720", fps="30", reconnect="3", timeout="2.5", show="false", line="4")
    assert options.reading == module.SourceOptions(2.5, 3, (1280, 720), 30.0)
    assert (options.show, options.line, options.limit, options.overlay) == (False, 4, None, True)
    assert [parsed(source="0", **w).workers for w in ({}, {"workers": "auto"}, {"workers": "3"})] == [None, None, 3]


def test_a_window_needs_a_screen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a screen"):
        predict(grey_detector(), parsed(source=str(images(tmp_path / "in")), show="true"))


def test_an_output_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"allowed are .jsonl"):
        predict(grey_detector(), parsed(source=str(images(tmp_path / "in")), output="out.gif"))


def test_the_verb_loads_what_is_named_and_closes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, asked, opened = grey_detector(), [], []
    network = RunnableModel("onnxruntime", tmp_path / "m.onnx", detector.info)
    opener = SimpleNamespace(network=lambda: network)
    monkeypatch.setattr(module, "BundleOpener", lambda *given: (asked.append(given), opener)[1])
    monkeypatch.setattr(Running, "open", lambda self, given: (opened.append((self, given)), detector)[1])
    said: list[str] = []
    source = images(tmp_path / "in")
    arguments = {
        "model": "bundle",
        "source": str(source),
        "conf": "0.4",
        "threads": "2",
        "output": f"{tmp_path}/a.jsonl",
    }
    assert main(arguments, said.append) == 0
    assert asked == [("bundle", Running(threads=2, conf=0.4))]
    assert opened == [(Running(threads=1, conf=0.4), network)] * 2, "a folder's images can wait: a worker per thread"
    assert "12 frames" in said[-1] and "wrote" in said[-1] and detector.backend.closed  # type: ignore[attr-defined]
    del arguments["output"]
    said.clear()
    main(arguments, said.append)
    assert json.loads(said[-1])["summary"]["frames"] == 12 and len(said) == 13
    with pytest.raises(DataError):
        main({"source": str(tmp_path / "none")}, said.append)
