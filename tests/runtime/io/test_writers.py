from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from full_disk import largest_file
from live_fakes import grey_picture

from yoloquant.runtime.apps.pipeline import FrameResult, Times
from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.errors import OutputError
from yoloquant.runtime.io import writers
from yoloquant.runtime.io.sources import Frame
from yoloquant.runtime.io.writers import ImageFolder, JsonLines, SaidLines, VideoFile
from yoloquant.runtime.tasks import Task, spec_of

DETECT = spec_of(Task.DETECT)


def result(index: int, image: np.ndarray | None = None, name: str = "", count: int = 1) -> FrameResult:
    image = grey_picture(index * 10 % 256, (48, 64)) if image is None else image
    boxes = np.array([[1.25, 2, 30.5, 40]] * count, np.float32).reshape(-1, 4)
    found = Detections(boxes, np.full(count, 0.5, np.float32), np.ones(count, np.int64))
    return FrameResult(Frame(index, index / 10, image, name), found, Times(0, 0, 0, 0), 0.0123)


def test_json_lines_hold_one_object_per_frame(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    writer = JsonLines(path, ["cat", "dög"], DETECT)
    writer.write(result(0))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1, "a line can be read at once"
    writer.write(result(7, name="a.png", count=0))
    writer.close()
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert first == {
        "index": 0,
        "time": 0.0,
        "xyxy": [[1.25, 2.0, 30.5, 40.0]],
        "confidence": [0.5],
        "class_id": [1],
        "names": ["dög"],
        "latency_ms": 12.3,
    }
    assert (second["index"], second["time"], second["file"], second["xyxy"]) == (7, 0.7, "a.png", [])


def test_lines_can_be_said() -> None:
    said: list[str] = []
    SaidLines(said.append, ["cat"], DETECT).write(result(3))
    assert json.loads(said[0])["names"] == ["1"], "a class without a name is named by its number"


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    writer = JsonLines(path, ["cat", "dog"], DETECT)
    with largest_file(1000), pytest.raises(OutputError, match="cannot be written"):
        for index in range(100):
            writer.write(result(index))
    writer.close()
    lines = path.read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(len(lines))) and len(lines) > 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_device_that_is_full(tmp_path: Path) -> None:
    writer = JsonLines(Path("/dev/full"), [], DETECT)
    with pytest.raises(OutputError, match="No space left"):
        writer.write(result(0))


@pytest.mark.parametrize(
    "make", [lambda p: JsonLines(p / "x.jsonl", [], DETECT), lambda p: VideoFile(p / "x.mp4"), ImageFolder]
)
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, make: object) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another output="):
        make(tmp_path / "file" / "sub")  # type: ignore[operator]


def read_video(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (found := capture.read())[0]:
        frames.append(found[1])
    return frames


@pytest.mark.parametrize("suffix", sorted(writers.VIDEO_SUFFIXES))
def test_a_video_holds_every_frame_and_gets_its_name_at_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    writer = VideoFile(path, 12.5)
    for index in range(20):
        writer.write(result(index))
    assert not path.exists()
    writer.close()
    frames = read_video(path)
    assert [float(f.mean()) for f in frames] == pytest.approx([10.0 * i for i in range(20)], abs=8)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_frames_of_other_sizes_are_fitted(tmp_path: Path) -> None:
    writer = VideoFile(tmp_path / "out.avi")
    for image in (grey_picture(200, (51, 65)), grey_picture(200, (100, 50)), grey_picture(200, (51, 65))):
        writer.write(result(0, image))
    writer.close()
    first, second, _ = read_video(tmp_path / "out.avi")
    assert first.shape == second.shape == (50, 64, 3)
    assert second[25, 32].mean() > 180 and second[25, 4].mean() < 30


def test_a_cameras_video_lasts_as_long_as_the_camera_was_watched(tmp_path: Path) -> None:
    writer = VideoFile(tmp_path / "out.avi", 10.0, steady=True)
    for index, moment in enumerate((3.0, 3.1, 3.12, 3.6, 3.7)):  # a frame too many, and then a gap
        taken = result(index, grey_picture(40 * index + 10, (48, 64)))
        writer.write(replace(taken, frame=replace(taken.frame, time=moment)))
    writer.close()
    shades = [float(f.mean()) for f in read_video(tmp_path / "out.avi")]
    assert shades == pytest.approx([10, 50, 90, 90, 90, 90, 130, 170], abs=8)


def test_a_video_without_frames_leaves_nothing(tmp_path: Path) -> None:
    VideoFile(tmp_path / "out.mp4").close()
    assert not list(tmp_path.iterdir())


def test_a_disk_that_gets_full_ends_a_video_while_it_can_still_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = VideoFile(tmp_path / "out.avi", reserve=1 << 20)
    for index in range(writers._CHECK_EVERY):
        writer.write(result(index))
    usage = type(writers.shutil.disk_usage(str(tmp_path)))(10, 10, 1000)
    monkeypatch.setattr(writers.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=rf"is full .* {writers._CHECK_EVERY} frames were written"):
        writer.write(result(99))
    writer.close()
    assert len(read_video(tmp_path / "out.avi")) == writers._CHECK_EVERY


def test_a_video_whose_writes_failed_is_reported(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (48, 64, 3), dtype=np.uint8)
    (tmp_path / "out.avi").write_bytes(b"an older video")
    writer = VideoFile(tmp_path / "out.avi")
    with largest_file(20_000), pytest.raises(OutputError, match=r"damaged: .* is in '.*\.out\.part\.avi'"):
        for index in range(200):
            writer.write(result(index, noise))
        writer.close()
    assert (tmp_path / "out.avi").read_bytes() == b"an older video", "a damaged one must not take its place"


def test_images_keep_their_names_and_are_written_whole(tmp_path: Path) -> None:
    writer = ImageFolder(tmp_path / "out")
    writer.write(result(5, name="a.png"))
    writer.write(result(6))
    writer.close()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000006.jpg", "a.png"]
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "a.png")), result(5).frame.image)


def test_an_image_on_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    writer = ImageFolder(tmp_path)
    noise = np.random.RandomState(0).randint(0, 256, (48, 64, 3), dtype=np.uint8)
    with largest_file(500), pytest.raises(OutputError, match="cannot be written"):
        writer.write(result(0, noise, "a.png"))
    assert not list(tmp_path.iterdir())
