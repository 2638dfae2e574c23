from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

import numpy as np
import pytest
from live_fakes import ListSource, StuckSource, grey_detector, grey_picture, pictured
from signalled import run_pipeline, signalled

from yoloquant.runtime.apps.pipeline import Ending, FrameResult
from yoloquant.runtime.apps.pipeline_base import PipelineBase
from yoloquant.runtime.apps.workers import pipeline_of
from yoloquant.runtime.core.detector import Detector
from yoloquant.runtime.errors import OutputError, SourceError, TargetError
from yoloquant.runtime.io.sources import Source

GREYS = [7 * i % 61 for i in range(60)]

Before = Callable[[], None]


class Maker(Protocol):
    def __call__(
        self, source: Source, consume: Callable[[FrameResult], None], before: Before = ..., **more: Any
    ) -> PipelineBase: ...


@pytest.fixture(params=[1, 2, 3], ids=["one worker", "two workers", "three workers"])
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def make(workers: int) -> Maker:
    """Makes a pipeline of so many workers; ``before`` is called before every inference of any of them."""

    def pipeline(
        source: Source, consume: Callable[[FrameResult], None], before: Before = lambda: None, **more: Any
    ) -> PipelineBase:
        detectors: list[Detector] = [grey_detector(before) for _ in range(workers)]
        return pipeline_of(source, detectors, consume, **more)

    return pipeline


def pictures(values: list[int] = GREYS) -> list[np.ndarray]:
    return [grey_picture(v) for v in values]


def test_every_frame_of_a_file_gets_its_own_result_in_order(make: Maker) -> None:
    results: list[FrameResult] = []
    source = ListSource(pictures())
    outcome = make(source, results.append).run()
    assert (outcome.ending, outcome.frames, outcome.dropped) == (Ending.END, 60, 0)
    assert [r.frame.index for r in results] == list(range(60))
    assert [pictured(r.detections.xyxy) for r in results if GREYS[r.frame.index]] == [g for g in GREYS if g]
    assert source.closed


@pytest.mark.parametrize("live", [False, True])
def test_the_network_reads_the_memory_that_was_prepared(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy on the way costs a camera's frame time, and on a GPU its page-locked memory."""
    detector, made, read = grey_detector(), [], []
    new_input, run = detector.backend.new_input, detector.backend.run
    monkeypatch.setattr(detector.backend, "new_input", lambda: made.append(new_input()) or made[-1])

    def slow(tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        read.append(tensor)
        before = tensor.copy()
        time.sleep(0.003)
        assert np.array_equal(tensor, before), "overwritten while the network read it"
        return run(tensor)

    monkeypatch.setattr(detector.backend, "run", slow)
    source = ListSource(pictures(), live=live, pause=0.0005 * live)
    outcome = pipeline_of(source, [detector], lambda result: None).run()
    assert outcome.frames > 3 and (outcome.dropped > 0) == live
    assert len(made) == 3 and all(any(tensor is own for own in made) for tensor in read)


@pytest.mark.parametrize("slow", ["source", "network", "consumer"])
def test_results_belong_to_their_frames_whoever_is_slow(slow: str, make: Maker) -> None:
    """Buffers are reused by preprocessing and by the network; nothing may be overwritten before it is used."""
    seen: list[tuple[int, int]] = []

    def consume(result: FrameResult) -> None:
        if slow == "consumer":
            time.sleep(0.004)
        seen.append((round(float(result.frame.image.mean())), pictured(result.detections.xyxy)))

    values = [5 + 13 * i % 53 for i in range(40)]
    source = ListSource(pictures(values), pause=0.004 * (slow == "source"))
    make(source, consume, lambda: time.sleep(0.004 * (slow == "network"))).run()
    assert seen == [(v, v) for v in values]


def test_a_live_source_drops_the_oldest_frames_and_counts_them(make: Maker) -> None:
    results: list[FrameResult] = []
    values = [1 + i % 60 for i in range(50)]
    source = ListSource(pictures(values), live=True, pause=0.002)
    outcome = make(source, results.append, lambda: time.sleep(0.02)).run()
    indices = [r.frame.index for r in results]
    assert indices == sorted(set(indices)) and indices[-1] == 49, "the newest frame must win"
    assert outcome.dropped > 0 and outcome.frames + outcome.dropped == 50
    assert all(pictured(r.detections.xyxy) == values[r.frame.index] for r in results)


def test_a_failing_source_ends_the_run_after_what_was_read(make: Maker) -> None:
    results: list[FrameResult] = []
    source = ListSource([*pictures([3, 4, 5]), SourceError("cable pulled")])
    outcome = make(source, results.append).run()
    assert (outcome.ending, outcome.frames, outcome.error) == (Ending.LOST, 3, "cable pulled")
    assert len(results) == 3 and source.closed


def test_a_stalled_source_is_noticed(make: Maker) -> None:
    source = StuckSource(pictures([3, 4]), stall_timeout=0.3)
    outcome = make(source, lambda r: None).run()
    assert outcome.ending is Ending.LOST and "stalled: no frame for 0." in outcome.error
    assert source.closed


def test_a_limit_reads_no_more_than_it_needs(make: Maker) -> None:
    results: list[FrameResult] = []
    source = ListSource(pictures())
    outcome = make(source, results.append, limit=5).run()
    assert (outcome.ending, outcome.frames, len(results)) == (Ending.LIMIT, 5, 5)
    assert source._index == 5


def test_stopping_consumes_what_was_inferred(make: Maker) -> None:
    results: list[FrameResult] = []
    inferred: list[int] = []

    def counted() -> None:
        inferred.append(1)

    pipeline = make(ListSource(pictures() * 100), lambda r: (results.append(r), stop(r))[0], counted)

    def stop(result: FrameResult) -> None:
        if result.frame.index == 20:
            pipeline.stop()

    outcome = pipeline.run()
    assert outcome.ending is Ending.STOPPED and outcome.frames == len(results) == len(inferred) < 100


def test_ctrl_c_ends_the_run_in_order(workers: int) -> None:
    ending, frames, results, closed = signalled(signal.SIGINT, run_pipeline, workers)
    assert ending == "STOPPED" and frames == results > 0 and closed


def test_an_error_of_the_consumer_is_raised_and_everything_ends(make: Maker) -> None:
    def consume(result: FrameResult) -> None:
        if result.frame.index == 4:
            raise OutputError("disk full")

    source = ListSource(pictures() * 10)
    before = threading.active_count()
    with pytest.raises(OutputError, match="disk full"):
        make(source, consume).run()
    assert source.closed and threading.active_count() == before


def test_an_error_of_the_network_is_raised_and_everything_ends(make: Maker) -> None:
    def fail() -> None:
        raise TargetError("out of memory")

    source = ListSource(pictures() * 10)
    before = threading.active_count()
    with pytest.raises(TargetError, match="out of memory"):
        make(source, lambda r: None, fail).run()
    assert source.closed and threading.active_count() == before


def test_an_image_that_cannot_be_prepared_is_an_error(make: Maker) -> None:
    with pytest.raises(Exception, match="BGR uint8"):
        make(ListSource([np.zeros((4, 4), np.uint8)]), lambda r: None).run()


def test_pictures_are_shown_in_the_callers_thread_until_somebody_quits(make: Maker) -> None:
    threads: set[int] = set()
    shown: list[int] = []

    def show(result: FrameResult) -> bool:
        threads.add(threading.get_ident())
        shown.append(result.frame.index)
        return len(shown) < 3

    outcome = make(ListSource(pictures() * 100), lambda r: None, show=show).run()
    assert outcome.ending is Ending.STOPPED and len(shown) == 3 and threads == {threading.get_ident()}


@pytest.mark.parametrize("still", [True, False])
def test_every_still_and_the_last_frame_of_a_video_are_shown(still: bool, make: Maker) -> None:
    shown: list[int] = []
    source = ListSource(pictures([5, 6, 7]))
    source.still = still
    make(source, lambda r: None, show=lambda r: (shown.append(r.frame.index), True)[1]).run()
    assert shown == [0, 1, 2] if still else shown[-1] == 2


def test_times_and_age_are_measured(make: Maker) -> None:
    results: list[FrameResult] = []
    make(ListSource(pictures([9, 9])), results.append, lambda: time.sleep(0.02)).run()
    for result in results:
        assert result.times.inference >= 0.02 and result.age >= 0.02
        assert min(result.times.read, result.times.preprocess, result.times.postprocess) > 0


def test_frames_on_their_way_are_few_when_the_consumer_is_slow(make: Maker, workers: int) -> None:
    source, ahead = ListSource(pictures() * 5), []

    def consume(result: FrameResult) -> None:
        time.sleep(0.002)
        ahead.append(source._index - result.frame.index)

    make(source, consume).run()
    assert len(ahead) == 300 and max(ahead) <= (10 if workers == 1 else 4 * workers + 3)


def test_a_worker_that_is_held_up_changes_no_order(make: Maker, workers: int) -> None:
    numbers, results = count(), []

    def held() -> None:
        time.sleep(0.03 * (next(numbers) % 7 == 0))

    make(ListSource(pictures([5 + i % 50 for i in range(40)])), results.append, held).run()
    assert [r.frame.index for r in results] == list(range(40))
    assert [pictured(r.detections.xyxy) for r in results] == [5 + i % 50 for i in range(40)]


def test_an_error_of_the_network_on_the_way_ends_every_worker(make: Maker) -> None:
    numbers, results = count(), []

    def fail() -> None:
        if next(numbers) == 20:
            raise TargetError("device lost")

    source = ListSource(pictures() * 100)
    before = threading.active_count()
    with pytest.raises(TargetError, match="device lost"):
        make(source, results.append, fail).run()
    assert source.closed and threading.active_count() == before
    assert [r.frame.index for r in results] == list(range(len(results))) and len(results) <= 20


def test_a_live_source_ends_at_its_limit(make: Maker) -> None:
    results: list[FrameResult] = []
    source = StuckSource(pictures([1 + i for i in range(6)]), stall_timeout=30)
    source._pause = 0.01
    outcome = make(source, results.append, limit=3).run()
    assert (outcome.ending, outcome.frames, len(results)) == (Ending.LIMIT, 3, 3) and source.closed


def test_the_age_of_a_live_frame_includes_the_wait_for_its_turn() -> None:
    """Two workers: the first frame takes long, the second one has to wait for it."""
    numbers, results = count(), []
    before = lambda: time.sleep(0.2 if next(numbers) == 0 else 0.001)  # noqa: E731
    source = ListSource(pictures([3, 4]), live=True, pause=0.02)
    pipeline_of(source, [grey_detector(before), grey_detector(before)], results.append).run()
    second = results[1]
    assert second.frame.index == 1 and second.times.inference < 0.1 < second.age


def test_a_slow_consumer_is_no_stalled_source(make: Maker) -> None:
    source = ListSource(pictures([3] * 12))
    source.stall_timeout = 0.05
    assert make(source, lambda r: time.sleep(0.1)).run().ending is Ending.END
