"""Work in a process of its own that gets a signal: what a signal ends by mistake is that process, not the tests."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from live_fakes import ListSource, grey_detector, grey_picture

from yoloquant.runtime.apps import predict as predict_module
from yoloquant.runtime.apps.settings import VerbSettings
from yoloquant.runtime.apps.workers import pipeline_of
from yoloquant.runtime.backends import BackendOptions, open_backend
from yoloquant.runtime.core.model_info import ModelInfo

Announce = Callable[[], None]

TIMEOUT = 60


def signalled(number: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """What work returns that is sent a signal as soon as it announces that it is ready for one.

    Args:
        number: The signal.
        work: A function of a module that can be imported; called with a function that announces, and the arguments.
        *arguments: Further arguments; they are pickled, and so is what it returns.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(there, work, arguments), daemon=True)
    process.start()
    there.close()
    assert process.pid is not None
    try:
        _receive(here, process)
        os.kill(process.pid, number)
        return _receive(here, process)
    finally:
        process.join(TIMEOUT)


def _receive(pipe: Any, process: Any) -> Any:
    assert pipe.poll(TIMEOUT), "the process says nothing"
    try:
        return pipe.recv()
    except EOFError:
        process.join(TIMEOUT)
        raise AssertionError(f"the process ended with exit code {process.exitcode}") from None


def _run(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    pipe.send(work(lambda: pipe.send("ready"), *arguments))


def _at(turn: int, announce: Announce) -> Callable[[], None]:
    """Announces when it is called for the so many-th time."""
    turns = count()
    return lambda: announce() if next(turns) == turn else None


def predict_to_files(announce: Announce, folder: Path, workers: int) -> tuple[str, int, bool]:
    """The verb, with more pictures than it can get through; how it ended, its frames, and if handlers are restored."""
    source = ListSource((grey_picture(i % 200) for i in range(100000)), pause=0.001)
    predict_module.open_source = lambda text, options: source
    predict_module.has_display = lambda: False
    given = {"source": "x", "output": f"{folder}/a.jsonl,{folder}/b.avi"}
    options = predict_module.PredictOptions.parse(VerbSettings(given, predict_module.KEYS, "predict"))
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    ready = _at(20, announce)
    summary = predict_module.predict([grey_detector(ready) for _ in range(workers)], options)
    restored = before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return summary.outcome.ending.name, summary.outcome.frames, restored


def run_pipeline(announce: Announce, workers: int) -> tuple[str, int, int, bool]:
    """A pipeline without handlers of its own; how it ended, its frames, the results, and if its source is closed."""
    results: list[Any] = []
    source = ListSource((grey_picture(i % 60) for i in range(100000)), pause=0.001)
    ready = _at(20, announce)
    outcome = pipeline_of(source, [grey_detector(ready) for _ in range(workers)], results.append).run()
    return outcome.ending.name, outcome.frames, len(results), source.closed


def free_networks(announce: Announce, backend: str, path: Path, info: ModelInfo, options: BackendOptions) -> str:
    """Loads a network three times, frees them in the order of their loading, and waits."""
    networks = [open_backend(backend, path, info, options) for _ in range(3)]
    while networks:
        networks.pop(0).close()
    try:
        announce()
        time.sleep(TIMEOUT)
    except KeyboardInterrupt:
        return "interrupted"
    return "not interrupted"
