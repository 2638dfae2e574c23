"""Ask TensorRT-RTX whether it parses and builds a model, and which convolutions it really runs in Int8.

TensorRT-RTX compiles on a CPU, with the ONNX parser and the Q/DQ optimizer of the TensorRT family. Its verdict on
types is evidence for TensorRT on a device, its timing is not. It is strongly typed: there are no INT8 or FP16 builder
flags (TensorRT-RTX 1.7.1), types come from the Q/DQ nodes alone.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ModelError
from ...runtime.tensorrt.layers import Int8Report, Layer, check, parse_log

logger = logging.getLogger(__name__)

_WORKER = "yoloquant.targets.tensorrt.rtx_worker"
_EXCERPT_LINES = 40
_EXCERPT_WIDTH = 400


@dataclass(frozen=True)
class ParserError:
    """What the ONNX parser objected to.

    Attributes:
        node: Name of the ONNX node; empty where the parser names none.
        operator: Its operator.
        message: The parser's own words.
    """

    node: str
    operator: str
    message: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.node or '(no node)'} [{self.operator}]: {self.message}"


@dataclass(frozen=True)
class RtxReport:
    """Outcome of a parse-and-build check.

    Attributes:
        available: Whether TensorRT-RTX is installed; if not, nothing else here means anything.
        version: Version of TensorRT-RTX.
        parsed: Whether the ONNX parser took the model.
        parser_errors: What it objected to.
        built: Whether an engine was built.
        crashed: Whether the compiler's process died or had to be stopped.
        int8_convs: Planned convolutions that the engine runs in Int8, in the order asked.
        float_convs: Planned convolutions that the engine runs in another type.
        unseen_convs: Planned convolutions that no kernel of the engine could be matched with.
        layers: Every layer of the engine.
        log_excerpt: The log's warnings and errors, or its end after a crash.
        seconds: Wall time of the check.
    """

    available: bool
    version: str = ""
    parsed: bool = False
    parser_errors: tuple[ParserError, ...] = ()
    built: bool = False
    crashed: bool = False
    int8_convs: tuple[str, ...] = ()
    float_convs: tuple[str, ...] = ()
    unseen_convs: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    log_excerpt: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether an engine was built in which every planned convolution runs in Int8."""
        return self.built and not self.crashed and not self.float_convs and not self.unseen_convs

    def summary(self) -> str:
        """One sentence for people."""
        if not self.available:
            return "not checked: TensorRT-RTX (module tensorrt_rtx) is not installed"
        head = f"TensorRT-RTX {self.version}: "
        if self.crashed:
            return f"{head}the compiler crashed on this model"
        if not self.parsed:
            return f"{head}not parsed: " + "; ".join(map(str, self.parser_errors))
        if not self.built:
            return f"{head}parsed, but no engine could be built"
        planned = len(self.int8_convs) + len(self.float_convs) + len(self.unseen_convs)
        text = f"{head}{len(self.int8_convs)} of {planned} planned convolutions run in Int8"
        if self.float_convs:
            text += f"; in float: {', '.join(self.float_convs)}"
        if self.unseen_convs:
            text += f"; not found in the engine: {', '.join(self.unseen_convs)}"
        return text


def is_available() -> bool:
    """Whether TensorRT-RTX is installed; imports nothing."""
    return importlib.util.find_spec("tensorrt_rtx") is not None


def build_check(onnx_path: Path, *, planned_convs: Collection[str] = (), timeout_s: float = 300) -> RtxReport:
    """Parse a model with TensorRT-RTX, build its engine, and see which convolutions run in Int8.

    Args:
        onnx_path: The model. It is compiled in a process of its own: a crash there is a result, not an exception.
        planned_convs: Names of the ONNX Conv (or MatMul, Gemm) nodes that should run in Int8.
        timeout_s: Seconds after which the compiler is stopped; that counts as a crash.

    Returns:
        What happened; ``available`` is False if TensorRT-RTX is not installed.

    Raises:
        ModelError: There is no such file.
    """
    if not onnx_path.is_file():
        raise ModelError(f"there is no ONNX file at {onnx_path}; export the model first")
    if not is_available():
        return RtxReport(available=False)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="yoloquant-rtx-") as folder:
        result, log = Path(folder, "result.json"), Path(folder, "build.log")
        code, output = _run_worker((onnx_path.resolve(), result, log), timeout_s)
        outcome = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    report = _report(outcome, code, output, text, tuple(planned_convs), time.perf_counter() - start)
    logger.info("%s: %s (%.1f s)", onnx_path.name, report.summary(), report.seconds)
    return report


def _run_worker(paths: tuple[Path, ...], timeout_s: float) -> tuple[int, str]:
    """Exit code of the worker (negative: killed by that signal, as the system reports it) and what it printed."""
    package_parent = str(Path(__file__).resolve().parents[3])
    # the worker must import this very package, also where it runs from a checkout
    search = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))
    command = (sys.executable, "-m", _WORKER, *map(str, paths))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, "PYTHONPATH": search},
            check=False,
        )
    except subprocess.TimeoutExpired:
        # As if the system had killed it: for a report that is a crash, too.
        return -9, f"stopped after {timeout_s:g} s"
    return done.returncode, done.stdout


def _report(
    outcome: dict[str, Any], code: int, output: str, log: str, planned: tuple[str, ...], seconds: float
) -> RtxReport:
    crashed = code != 0
    # A process that dies on its way out has written "built" already.
    built = bool(outcome.get("built")) and not crashed
    lines = log.split("\n")
    layers = parse_log(lines) if built else ()
    found = check(layers, planned) if built else Int8Report()
    return RtxReport(
        available=True,
        version=outcome.get("version", ""),
        parsed=bool(outcome.get("parsed")),
        parser_errors=tuple(ParserError(**error) for error in outcome.get("errors", ())),
        built=built,
        crashed=crashed,
        int8_convs=found.int8,
        float_convs=found.other,
        unseen_convs=(*found.missing, *found.hidden),
        layers=layers,
        log_excerpt=_excerpt(lines, output, code if crashed else 0),
        seconds=seconds,
    )


def _excerpt(lines: list[str], output: str, crash_code: int) -> str:
    # After a crash everything counts: the last line may be the only trace.
    kept = lines if crash_code else [line for line in lines if line.startswith(("[WARNING]", "[ERROR]", "[INTERNAL"))]
    tail = [line[:_EXCERPT_WIDTH] for line in kept if line.strip()][-_EXCERPT_LINES:]
    if crash_code:
        tail.append(f"(the compiler's process ended with code {crash_code}) {output.strip()[-2000:]}".strip())
    return "\n".join(tail)
