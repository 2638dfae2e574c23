"""The command of any checkout of this project, and what running it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_START = "import sys, tomllib; from importlib import import_module; m, f = tomllib.load(open(sys.argv.pop(1), 'rb'))[\
'project']['scripts']['yoloquant'].split(':'); sys.exit(getattr(import_module(m), f)())"


def command(checkout: Path) -> list[str]:
    """The start of a command line that runs a checkout's own ``yoloquant``, wherever its code keeps it."""
    return [sys.executable, "-c", _START, str(checkout / "pyproject.toml")]


def environment(checkout: Path) -> dict[str, str]:
    """What a checkout's process needs: its own modules, one thread, dictionaries in the same order."""
    return {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True)
class JobCost:
    """What a process and all that it started took.

    Attributes:
        cpu: Seconds of processor time.
        wall: Seconds that passed.
        peak_mb: Resident memory of its largest process; at least that of the process that measures, as Linux counts it.
        code: Its exit code.
    """

    cpu: float
    wall: float
    peak_mb: float
    code: int


def measured(line: Sequence[str], log: Path, **options: object) -> JobCost:
    """Run a command, its output in a file, and say what it cost (POSIX).

    Args:
        line: The command.
        log: Takes all that it prints.
        **options: Of ``subprocess.Popen``.
    """
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
        try:
            # of this process and of those that it waited for; getrusage would add up all that ran before
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    wall = time.monotonic() - started
    return JobCost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * unit / 1e6, process.returncode)
