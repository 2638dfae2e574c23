"""What a cluster can take, told from what Ray says of its machines."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from yoloquant.cluster import connected, connecting, processors, require_room, slots
from yoloquant.errors import UsageError


def ray_of(*machines: dict[str, float]) -> Any:
    """What is asked of the module ``ray``; the last machine has gone."""
    nodes = [{"Alive": True, "Resources": m} for m in machines]
    return SimpleNamespace(nodes=lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}])


def test_tasks_at_a_time_are_counted_machine_by_machine() -> None:
    ray = ray_of({"CPU": 3.0}, {"CPU": 5.0, "GPU": 1.0})
    assert [slots(ray, cpus=n) for n in (0.5, 1, 2, 4, 6)] == [16, 8, 3, 1, 0]
    assert slots(ray, cpus=1, gpus=0.5) == 2
    assert processors(ray) == 5


def test_what_no_machine_has_is_refused_and_not_waited_for() -> None:
    ray = ray_of({"CPU": 3.0}, {"CPU": 2.0, "GPU": 1.0})
    require_room(ray, cpus=3, gpus=0)
    with pytest.raises(UsageError, match=r"cpus=3 and gpus=1 of a trial \(at most 3 CPUs and 1 GPUs\)"):
        require_room(ray, cpus=3, gpus=1)


def fake_ray(monkeypatch: pytest.MonkeyPatch, init: Callable[[], object]) -> list[str]:
    """Put something in Ray's place; what is called is noted."""
    called: list[str] = []

    def begin(**given: Any) -> None:
        called.append("init")
        init()

    ray = SimpleNamespace(is_initialized=lambda: False, init=begin, shutdown=lambda: called.append("shutdown"))
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    return called


def test_a_cluster_starts_while_its_caller_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    caller_is_on = threading.Event()

    def init() -> None:
        assert caller_is_on.wait(30), "the caller waits for the cluster"

    called = fake_ray(monkeypatch, init)
    with connecting(None, lambda ray: called.append("used") or "workers") as ready:
        caller_is_on.set()
        assert ready() == "workers" == ready(), "asked for twice, begun once"
        called.append("caller")
    assert called == ["init", "used", "caller", "shutdown"]


def test_a_cluster_is_left_once_while_its_caller_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    caller_is_on = threading.Event()
    called = fake_ray(monkeypatch, lambda: None)
    ray = sys.modules["ray"]

    def shutdown() -> None:
        assert caller_is_on.wait(30), "the caller waits until the cluster has ended"
        called.append("shutdown")

    monkeypatch.setattr(ray, "shutdown", shutdown)
    with connecting(None, lambda ray: "workers") as ready:
        assert ready() == "workers"
        leaving = ready.leave()
        called.append("caller")
        caller_is_on.set()
        leaving.result(30)
        assert called == ["init", "caller", "shutdown"], "who waits is behind the end"
    assert called == ["init", "caller", "shutdown"], "left already"


def test_what_fails_where_a_cluster_is_left_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ray(monkeypatch, lambda: None)

    def shutdown() -> None:
        raise RuntimeError("processes hang")

    monkeypatch.setattr(sys.modules["ray"], "shutdown", shutdown)
    with pytest.raises(RuntimeError, match="processes hang"), connecting(None, lambda ray: "workers") as ready:
        ready()
        ready.leave()


def test_a_cluster_that_is_started_here_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    niceness, prestart = "RAY_worker_niceness", "RAY_prestart_worker_first_driver"
    monkeypatch.setenv(niceness, "7")
    monkeypatch.delenv(prestart, raising=False)
    seen: list[tuple[str | None, str | None]] = []
    fake_ray(monkeypatch, lambda: seen.append((os.environ.get(niceness), os.environ.get(prestart))))
    with connected(None):
        assert prestart not in os.environ, "programs that are started later are none of its workers"
    assert seen == [("7", "0")], "what somebody chose stays"
    assert os.environ[niceness] == "7"


def test_a_cluster_is_left_where_its_caller_fails_before_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    caller_is_on = threading.Event()
    called = fake_ray(monkeypatch, lambda: caller_is_on.wait(30))
    with pytest.raises(KeyError), connecting(None, lambda ray: called.append("used")):
        caller_is_on.set()
        raise KeyError
    assert called == ["init", "used", "shutdown"]


def test_a_cluster_that_cannot_be_started_says_so_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("no room in /dev/shm")

    called = fake_ray(monkeypatch, init)
    with (
        pytest.raises(UsageError, match=r"a cluster cannot be started here \(no room in /dev/shm\)"),
        connecting(None, lambda ray: None) as ready,
    ):
        called.append("caller")
        ready()
    assert sorted(called) == ["caller", "init"], "there is nothing to leave"
    with pytest.raises(UsageError, match="no Ray cluster answers"), connecting("127.0.0.1:1", lambda ray: None):
        pytest.fail("a cluster that runs already is asked before anything else")
