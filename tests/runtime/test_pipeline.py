from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from live_fakes import ListSource, StuckSource, grey_detector, grey_picture, pictured

from yoloquant.runtime.errors import OutputError, SourceError, TargetError
from yoloquant.runtime.pipeline import Ending, Pipeline, Result

GREYS = [7 * i % 61 for i in range(60)]


def pictures(values: list[int] = GREYS) -> list[np.ndarray]:
    return [grey_picture(v) for v in values]


def test_every_frame_of_a_file_gets_its_own_result_in_order() -> None:
    results: list[Result] = []
    source = ListSource(pictures())
    outcome = Pipeline(source, grey_detector(), results.append).run()
    assert (outcome.ending, outcome.frames, outcome.dropped) == (Ending.END, 60, 0)
    assert [r.frame.index for r in results] == list(range(60))
    assert [pictured(r.detections.boxes) for r in results if GREYS[r.frame.index]] == [g for g in GREYS if g]
    assert source.closed


@pytest.mark.parametrize("slow", ["source", "network", "consumer"])
def test_results_belong_to_their_frames_whoever_is_slow(slow: str) -> None:
    """Buffers are reused by preprocessing and by the network; nothing may be overwritten before it is used."""
    seen: list[tuple[int, int]] = []

    def consume(result: Result) -> None:
        if slow == "consumer":
            time.sleep(0.004)
        seen.append((round(float(result.frame.image.mean())), pictured(result.detections.boxes)))

    values = [5 + 13 * i % 53 for i in range(40)]
    detector = grey_detector(lambda: time.sleep(0.004 * (slow == "network")))
    Pipeline(ListSource(pictures(values), pause=0.004 * (slow == "source")), detector, consume).run()
    assert seen == [(v, v) for v in values]


def test_a_live_source_drops_the_oldest_frames_and_counts_them() -> None:
    results: list[Result] = []
    values = [1 + i % 60 for i in range(50)]
    source = ListSource(pictures(values), live=True, pause=0.002)
    outcome = Pipeline(source, grey_detector(lambda: time.sleep(0.02)), results.append).run()
    indices = [r.frame.index for r in results]
    assert indices == sorted(set(indices)) and indices[-1] == 49, "the newest frame must win"
    assert outcome.dropped > 0 and outcome.frames + outcome.dropped == 50
    assert all(pictured(r.detections.boxes) == values[r.frame.index] for r in results)


def test_a_failing_source_ends_the_run_after_what_was_read() -> None:
    results: list[Result] = []
    source = ListSource([*pictures([3, 4, 5]), SourceError("cable pulled")])
    outcome = Pipeline(source, grey_detector(), results.append).run()
    assert (outcome.ending, outcome.frames, outcome.error) == (Ending.LOST, 3, "cable pulled")
    assert len(results) == 3 and source.closed


def test_a_stalled_source_is_noticed() -> None:
    source = StuckSource(pictures([3, 4]), patience=0.3)
    outcome = Pipeline(source, grey_detector(), lambda r: None).run()
    assert outcome.ending is Ending.LOST and "stalled: no frame for 0." in outcome.error
    assert source.closed


def test_a_limit_reads_no_more_than_it_needs() -> None:
    results: list[Result] = []
    source = ListSource(pictures())
    outcome = Pipeline(source, grey_detector(), results.append, limit=5).run()
    assert (outcome.ending, outcome.frames, len(results)) == (Ending.LIMIT, 5, 5)
    assert source._index == 5


def test_stopping_consumes_what_was_inferred() -> None:
    results: list[Result] = []
    inferred = 0

    def count() -> None:
        nonlocal inferred
        inferred += 1

    pipeline = Pipeline(ListSource(pictures() * 100), grey_detector(count), lambda r: (results.append(r), stop(r))[0])

    def stop(result: Result) -> None:
        if result.frame.index == 20:
            pipeline.stop()

    outcome = pipeline.run()
    assert outcome.ending is Ending.STOPPED and outcome.frames == len(results) == inferred < 100


def test_ctrl_c_ends_the_run_in_order() -> None:
    results: list[Result] = []
    source = ListSource(pictures() * 1000, pause=0.001)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        timer.start()
        outcome = Pipeline(source, grey_detector(), results.append).run()
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome.ending is Ending.STOPPED and outcome.frames == len(results) > 0 and source.closed


def test_an_error_of_the_consumer_is_raised_and_everything_ends() -> None:
    def consume(result: Result) -> None:
        if result.frame.index == 4:
            raise OutputError("disk full")

    source = ListSource(pictures() * 10)
    before = threading.active_count()
    with pytest.raises(OutputError, match="disk full"):
        Pipeline(source, grey_detector(), consume).run()
    assert source.closed and threading.active_count() == before


def test_an_error_of_the_network_is_raised_and_everything_ends() -> None:
    def fail() -> None:
        raise TargetError("out of memory")

    source = ListSource(pictures() * 10)
    before = threading.active_count()
    with pytest.raises(TargetError, match="out of memory"):
        Pipeline(source, grey_detector(fail), lambda r: None).run()
    assert source.closed and threading.active_count() == before


def test_an_image_that_cannot_be_prepared_is_an_error() -> None:
    with pytest.raises(Exception, match="BGR uint8"):
        Pipeline(ListSource([np.zeros((4, 4), np.uint8)]), grey_detector(), lambda r: None).run()


def test_pictures_are_shown_in_the_callers_thread_until_somebody_quits() -> None:
    threads: set[int] = set()
    shown: list[int] = []

    def show(result: Result) -> bool:
        threads.add(threading.get_ident())
        shown.append(result.frame.index)
        return len(shown) < 3

    outcome = Pipeline(ListSource(pictures() * 100), grey_detector(), lambda r: None, show=show).run()
    assert outcome.ending is Ending.STOPPED and len(shown) == 3 and threads == {threading.get_ident()}


@pytest.mark.parametrize("still", [True, False])
def test_every_still_and_the_last_frame_of_a_video_are_shown(still: bool) -> None:
    shown: list[int] = []
    source = ListSource(pictures([5, 6, 7]))
    source.still = still
    Pipeline(source, grey_detector(), lambda r: None, show=lambda r: (shown.append(r.frame.index), True)[1]).run()
    assert shown == [0, 1, 2] if still else shown[-1] == 2


def test_times_and_age_are_measured() -> None:
    results: list[Result] = []
    Pipeline(ListSource(pictures([9, 9])), grey_detector(lambda: time.sleep(0.02)), results.append).run()
    for result in results:
        assert result.times.inference >= 0.02 and result.age >= 0.02
        assert min(result.times.read, result.times.preprocess, result.times.postprocess) > 0
