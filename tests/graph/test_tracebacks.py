"""Operations are traced without the Python stack that called them, and only for as long as it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.fx.config as config

from yoloquant.graph import tracebacks
from yoloquant.graph.tracebacks import no_tracebacks

needs_switch = pytest.mark.skipif(not hasattr(config, tracebacks._SWITCH), reason="this torch has no such switch")


def noted() -> list[Any]:
    """What the operations of a traced module say of where they come from."""
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2),), strict=False)
    return [node.stack_trace for node in program.graph.nodes if node.op == "call_function"]


@needs_switch
def test_nodes_say_nothing_of_their_origin_until_it_is_over() -> None:
    with no_tracebacks():
        assert not any(noted())
    assert all(noted())


@needs_switch
def test_an_error_puts_it_back() -> None:
    with pytest.raises(ValueError), no_tracebacks():
        raise ValueError
    assert getattr(config, tracebacks._SWITCH) is False


def test_a_release_without_the_switch_traces_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracebacks, "_SWITCH", "no_such_switch")
    with no_tracebacks():
        assert noted()
    assert not hasattr(config, "no_such_switch")
