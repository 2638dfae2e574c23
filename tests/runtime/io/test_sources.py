from __future__ import annotations

import http.server
import threading
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_fakes import Capture, MotionJpegServer, grey_picture

from yoloquant.runtime.errors import DataError, SourceError, UsageError
from yoloquant.runtime.io import sources as stream
from yoloquant.runtime.io.open_source import open_source
from yoloquant.runtime.io.sources import LiveSource, Source, SourceOptions


def write_video(path: Path, frames: int = 12, code: str = "MJPG") -> Path:
    """A video whose frames get brighter by 15."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10.0, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(grey_picture(15 * index % 256, (48, 64)))
    writer.release()
    return path


def everything(source: Source) -> list[stream.Frame]:
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    source.close()
    return frames


@pytest.mark.parametrize(("suffix", "code"), [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "mp4v")])
def test_every_frame_of_a_video_comes_once_with_its_time(tmp_path: Path, suffix: str, code: str) -> None:
    source = open_source(str(write_video(tmp_path / f"v{suffix}", 12, code)))
    frames = everything(source)
    assert not source.live and source.fps == pytest.approx(10)
    assert [f.index for f in frames] == list(range(12))
    assert [f.time for f in frames] == pytest.approx([i / 10 for i in range(12)], abs=0.011)
    assert [float(f.image.mean()) for f in frames] == pytest.approx([15.0 * i for i in range(12)], abs=6)


def test_a_truncated_video_is_reported_and_not_taken_for_a_short_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 60)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    source = open_source(str(path))
    if not source._promised:  # type: ignore[attr-defined]
        pytest.skip("this OpenCV counts the frames that are there")
    with pytest.raises(SourceError, match="truncated"):
        everything(source)


def test_the_end_of_a_video_is_held_against_its_header(tmp_path: Path) -> None:
    source = open_source(str(write_video(tmp_path / "v.avi", 12)))
    source._promised = 40  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match="12 of 40"):
        everything(source)


def test_a_folder_gives_its_images_in_order_and_names_the_unreadable(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{index}.png"), grey_picture(index * 50, (10 + index, 20)))
    (tmp_path / "1b.jpg").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(str(tmp_path))
    frames = everything(source)
    assert [(f.index, f.name, f.image.shape[0]) for f in frames] == [
        (0, "0.png", 10),
        (1, "1.png", 11),
        (2, "2.png", 12),
    ]
    assert source.unreadable == ["1b.jpg"] and source.still  # type: ignore[attr-defined]


def test_an_image_with_a_name_beyond_ascii(tmp_path: Path) -> None:
    path = tmp_path / "тест ü.png"
    path.write_bytes(cv2.imencode(".png", grey_picture(9))[1].tobytes())
    (frame,) = everything(open_source(str(path)))
    assert np.array_equal(frame.image, grey_picture(9))


def test_an_unreadable_image_alone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match="readable image"):
        open_source(str(tmp_path / "a.jpg")).read()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", UsageError, "empty"),
        ("missing.mp4", DataError, "does not exist"),
        ("98", DataError, "no camera 98"),
        ("/dev/video98", DataError, "no camera 98"),
        ("rtsp://127.0.0.1:9/stream", SourceError, "did not open within 2 s"),
        ("nosuchelement ! appsink", SourceError, "GStreamer"),
    ],
)
def test_a_missing_source_is_named(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        open_source(text, SourceOptions(timeout=2))


def test_an_empty_folder_and_a_file_that_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        open_source(str(tmp_path))
    (tmp_path / "v.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(DataError, match="neither"):
        open_source(str(tmp_path / "v.mp4"))


def test_a_password_is_not_shown() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("rtsp://user:secret@127.0.0.1:9/x", SourceOptions(timeout=2))
    assert "secret" not in str(caught.value) and "user:***@" in str(caught.value)


def live(captures: list[Capture | Exception], reconnect: int) -> LiveSource:
    def opener() -> Capture:
        found = captures.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return LiveSource("camera", opener, SourceOptions(reconnect=reconnect))


def test_a_lost_camera_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    source = live([Capture([grey_picture(1)] * 2)], reconnect=0)
    assert source.live and source.fps == 25.0
    assert [source.read().index, source.read().index] == [0, 1]  # type: ignore[union-attr]
    with pytest.raises(SourceError, match="lost after 2 frames; reconnect"):
        source.read()


def test_a_lost_stream_is_opened_again_as_often_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_pause", lambda attempt: 0.0)
    first, empty, again = Capture([grey_picture(1)]), Capture([]), Capture([grey_picture(2)])
    source = live([first, SourceError("refused"), empty, again, *[SourceError("refused")] * 3], reconnect=3)
    frames = [source.read(), source.read()]
    assert [f.index for f in frames if f] == [0, 1]
    assert first.released and empty.released and source.reconnects == 2
    with pytest.raises(SourceError, match="lost after 2 frames and did not come back in 3 attempts"):
        source.read()


def test_cancelling_ends_the_pause_before_an_attempt() -> None:
    source = live([Capture([])], reconnect=1000)
    source.cancel()
    assert source.read() is None


def test_a_network_stream_ends_stalls_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_pause", lambda attempt: 0.0)
    pictures = [grey_picture(2 * i, (120, 160)) for i in range(20)]
    with MotionJpegServer(pictures) as server:
        source = open_source(server.address, SourceOptions(timeout=20))
        assert source.live and source.read().image.shape == (120, 160, 3)  # type: ignore[union-attr]
        with pytest.raises(SourceError, match=r"was lost after \d+ frames; reconnect"):
            everything(source)
    with MotionJpegServer(pictures) as server:
        source = open_source(server.address, SourceOptions(timeout=20, reconnect=2))
        frames = [source.read() for _ in range(30)]
        assert [f.index for f in frames if f] == list(range(30)) and len(server.visits) == 2
        assert source.reconnects == 1  # type: ignore[attr-defined]
        source.close()
    silent = pytest.raises(SourceError, match=r"stalled \(no frame for \d")
    with MotionJpegServer(pictures, stall=True) as server, silent:
        everything(open_source(server.address, SourceOptions(timeout=1)))


def test_a_video_on_a_web_server_ends_as_a_file_does(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 12)
    handler = partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = open_source(f"http://127.0.0.1:{server.server_address[1]}/v.avi", SourceOptions(timeout=20))
        assert not source.live and len(everything(source)) == 12
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None: ...


def test_pauses_grow_to_a_limit() -> None:
    assert [stream._pause(a) for a in (0, 1, 2, 30)] == [0.5, 1.0, 2.0, stream.LONGEST_PAUSE_S]


def test_links_to_cameras_are_cameras(tmp_path: Path) -> None:
    from yoloquant.runtime.io.open_source import camera_number

    link = tmp_path / "usb-camera-index0"
    link.symlink_to("/dev/video7")
    assert [camera_number(t) for t in ("3", "/dev/video12", str(link))] == [3, 12, 7]
    assert [camera_number(t) for t in ("a.mp4", "rtsp://x/video0", str(tmp_path), "/dev/videofile")] == [None] * 4
    with pytest.raises(DataError, match="there is no camera '/dev/v4l/by-id/gone'"):
        camera_number("/dev/v4l/by-id/gone")


def test_a_camera_that_opens_and_is_silent_is_explained() -> None:
    from yoloquant.runtime.io.open_source import _SILENT_CAMERA

    class Silent:
        def read(self) -> tuple[bool, None]:
            return False, None

        def get(self, key: int) -> float:
            return 0.0

        def release(self) -> None: ...

    source = LiveSource("0", Silent, SourceOptions(), hint=_SILENT_CAMERA)
    with pytest.raises(SourceError, match=r"after 0 frames; a CSI camera .*nvarguscamerasrc"):
        source.read()
