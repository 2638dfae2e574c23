"""What a cluster can take, told from what Ray says of its machines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from yoloquant.cluster import processors, require_room, slots
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
