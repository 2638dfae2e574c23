"""Run ``edgetpu_compiler`` where it is installed. It is proprietary, for x86-64 Linux, and not on PyPI."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..litert.flatbuffer import MAGIC
from .compiler_log import CompilerReport, parse_log
from .edgetpu_options import CompilerOptions

PROGRAM = "edgetpu_compiler"
_NAME = "model"  # of the temporary file; the compiler appends to it


@dataclass(frozen=True, eq=False)
class CompilerRun:
    """What a run left behind.

    Attributes:
        report: What the compiler said.
        content: The compiled flatbuffer; empty if it failed.
    """

    report: CompilerReport
    content: bytes = b""


def find_compiler() -> str | None:
    """Path of the compiler, or None where it is not installed."""
    return shutil.which(PROGRAM)


def compile_model(content: bytes, options: CompilerOptions | None = None, *, program: str | None = None) -> CompilerRun:
    """Compile a flatbuffer in a temporary folder.

    Args:
        content: The flatbuffer, without anything appended.
        options: How.
        program: The compiler; looked up by default.

    Returns:
        The compiled bytes with the report. Failures and timeouts are in the report, not raised.
    """
    options = options or CompilerOptions()
    program = program or find_compiler()
    if program is None:
        return CompilerRun(CompilerReport(errors=(f"{PROGRAM} is not on PATH",)))
    with tempfile.TemporaryDirectory(prefix="yoloquant-edgetpu-") as name:
        folder = Path(name)
        # a name of our own: the compiler writes its results beside the file, called after it
        source = folder / f"{_NAME}.tflite"
        source.write_bytes(content)
        text, problem = _run([program, *_arguments(options, folder), str(source)], folder, options.timeout_seconds)
        log = folder / f"{_NAME}_edgetpu.log"
        if log.is_file():
            text += "\n" + log.read_text(errors="replace")
        report = parse_log(text)
        compiled = folder / f"{_NAME}_edgetpu.tflite"
        return _judge(report, problem, compiled.read_bytes() if compiled.is_file() else b"")


def _arguments(options: CompilerOptions, folder: Path) -> list[str]:
    search = ["--search_delegate", "--delegate_search_step", str(options.search_step)] if options.search_step else []
    several = ["-a"] if options.multiple_subgraphs else []
    fixed = ["--out_dir", str(folder), "--show_operations", "--timeout_sec", str(options.try_seconds)]
    return [*fixed, *search, *several]


def _judge(report: CompilerReport, problem: str, content: bytes) -> CompilerRun:
    """A run counts as successful only if the compiler says so and left a whole flatbuffer."""
    # A flatbuffer's identifier stands behind the offset of its root, at byte 4.
    if not problem and report.succeeded and content[4:8] != MAGIC:
        problem = "it reported success but wrote no .tflite"
    if problem:
        report = replace(report, succeeded=False, errors=(*report.errors, problem))
    return CompilerRun(report, content if report.succeeded else b"")


def _run(command: Sequence[str], folder: Path, seconds: float) -> tuple[str, str]:
    """What a command printed, and what went wrong with running it."""
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it starts a child of its own, which must go with it
        )
    except OSError as exc:
        return "", f"'{command[0]}' cannot be started: {exc.strerror or exc}"
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        output, _ = process.communicate()
        return output.decode(errors="replace"), f"it did not finish within {seconds:g} s"
    # Also for Ctrl-C, which a terminal does not send to the session of its own.
    except BaseException:
        _kill(process)
        raise
    problem = f"it exited with {process.returncode}" if process.returncode else ""
    return output.decode(errors="replace"), problem


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
