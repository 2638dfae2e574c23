from __future__ import annotations

import random
import threading

import pytest

from yoloquant.runtime.apps.bounded_queue import Closed
from yoloquant.runtime.apps.reorder_buffer import InOrder


@pytest.mark.parametrize("capacity", [1, 3])
def test_items_of_several_threads_come_in_order(capacity: int) -> None:
    places, lock = iter(range(300)), threading.Lock()
    queue: InOrder[int] = InOrder(capacity, producers=3)

    def produce(seed: int) -> None:
        draw, pause = random.Random(seed), threading.Event()
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                return queue.end()
            pause.wait(draw.random() * 0.002)
            queue.put(place, place * 10)

    threads = [threading.Thread(target=produce, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    assert [queue.get() for _ in range(300)] == [10 * i for i in range(300)]
    with pytest.raises(Closed):
        queue.get()
    for thread in threads:
        thread.join(5)


def test_who_is_too_far_ahead_waits_and_the_next_one_never_does() -> None:
    queue: InOrder[str] = InOrder(2)
    queue.put(1, "b")
    far = threading.Thread(target=queue.put, args=(2, "c"))
    far.start()
    far.join(0.05)
    assert far.is_alive()
    queue.put(0, "a")
    assert queue.get() == "a"
    far.join(5)
    assert not far.is_alive() and [queue.get(), queue.get()] == ["b", "c"]


def test_an_end_gives_what_is_there_and_an_abort_nothing() -> None:
    queue: InOrder[int] = InOrder(2, producers=2)
    queue.put(0, 7)
    queue.end()
    queue.end()
    assert queue.get() == 7
    with pytest.raises(Closed):
        queue.get()
    queue, closed = InOrder(1), threading.Event()

    def wait() -> None:
        try:
            queue.put(1, 8)
        except Closed:
            closed.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    queue.abort()
    waiting.join(5)
    assert closed.is_set()
    with pytest.raises(Closed):
        queue.get()
    with pytest.raises(Closed):
        queue.put(0, 7)
