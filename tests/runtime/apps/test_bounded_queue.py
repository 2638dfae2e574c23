from __future__ import annotations

import threading

import pytest

from yoloquant.runtime.apps.bounded_queue import BoundedQueue, Closed


def test_items_come_out_in_order_and_the_end_is_told_after_them() -> None:
    exchange: BoundedQueue[int] = BoundedQueue(3)
    for item in (1, 2, 3):
        exchange.put(item)
    exchange.end()
    assert [exchange.get(), exchange.get(), exchange.get()] == [1, 2, 3]
    with pytest.raises(Closed):
        exchange.get()


def test_the_newest_item_wins_and_the_others_are_counted() -> None:
    exchange: BoundedQueue[int] = BoundedQueue(1, newest=True)
    for item in range(5):
        exchange.put(item)
    assert (exchange.get(), exchange.dropped) == (4, 4)


def test_what_is_dropped_is_given_back() -> None:
    exchange: BoundedQueue[int] = BoundedQueue(1, newest=True)
    assert [exchange.put(i) for i in range(3)] == [None, 0, 1]


def test_a_full_buffer_makes_the_giver_wait() -> None:
    exchange: BoundedQueue[int] = BoundedQueue(1)
    given: list[int] = []

    def give() -> None:
        for item in range(3):
            exchange.put(item)
            given.append(item)
        exchange.end()

    thread = threading.Thread(target=give)
    thread.start()
    taken = []
    while True:
        try:
            taken.append(exchange.get())
        except Closed:
            break
        assert len(given) <= len(taken) + 2  # one in the buffer, one just handed over
    thread.join()
    assert taken == given == [0, 1, 2] and exchange.dropped == 0


def test_a_wait_ends_without_an_item() -> None:
    assert BoundedQueue[int](1).get(0.01) is None


def test_aborting_wakes_a_giver_and_a_taker() -> None:
    full: BoundedQueue[int] = BoundedQueue(1)
    full.put(0)
    empty: BoundedQueue[int] = BoundedQueue(1)
    ended = []

    def wait(work: object) -> None:
        with pytest.raises(Closed):
            work()  # type: ignore[operator]
        ended.append(work)

    threads = [threading.Thread(target=wait, args=(w,)) for w in (lambda: full.put(1), empty.get)]
    for thread in threads:
        thread.start()
    full.abort()
    empty.abort()
    for thread in threads:
        thread.join(10)
    assert len(ended) == 2
