"""Verify a bundle from the machine that made it, on the processors that it may meet."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import TargetError, YoloquantError
from ..evaluation.processors import PROCESSORS, Launch, launch, parse
from ..runtime.core.bundle_manifest import BundleManifest, read

PACKAGE = "yoloquant_runtime"
# emulated processors take minutes for what a real one does in seconds
TIMEOUT_S = 1800.0
_ANSWERED = (0, 1, 3)  # exit codes of a verification that got through


@dataclass(frozen=True)
class ProcessorCheck:
    """What a bundle's own ``verify`` says on one processor.

    Attributes:
        processor: Name of the processor.
        result: ``pass``, ``fail``, ``inconclusive``, or ``error`` where it could not be run.
        lines: What it printed, or why it could not be run.
        emulated: Whether the processor was emulated, so that times say nothing.
        details: Its JSON; empty after an error.
    """

    processor: str
    result: str
    lines: tuple[str, ...]
    emulated: bool = True
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """One line for people."""
        how = "emulated" if self.emulated else "not emulated"
        return f"{self.processor} ({PROCESSORS[self.processor]}; {how})"


def verify_on(
    bundle: str | os.PathLike[str],
    processors: str | Iterable[str],
    *,
    root: str | os.PathLike[str] = "",
    arguments: Iterable[str] = (),
    emulate: bool = False,
) -> Iterator[ProcessorCheck]:
    """Run a bundle's ``verify`` on processors, one after the other.

    Args:
        bundle: Its folder.
        processors: Names, see ``evaluation.processors``.
        root: The aarch64 root.
        arguments: Further ``key=value`` of ``verify``: data, limit, threads, expect.
        emulate: Emulate even a processor of which this machine is one.

    Yields:
        One outcome per processor. One that cannot be run is an error, never a pass.

    Raises:
        UsageError: A processor is unknown.
        BundleError: A file of the bundle is missing or changed.
    """
    processor_names = parse(processors)
    folder = Path(bundle).resolve()
    # read here, where a changed file is refused before anything of it runs
    manifest = read(folder)
    # one after the other while they are asked for: emulation takes minutes, and results should be seen as they come
    return (_one(folder, manifest, name, root, tuple(arguments), emulate) for name in processor_names)


def _one(
    folder: Path,
    manifest: BundleManifest,
    processor: str,
    root: str | os.PathLike[str],
    arguments: tuple[str, ...],
    emulate: bool,
) -> ProcessorCheck:
    try:
        start = launch(processor, manifest.backend, root=root, emulate=emulate)
        return _run(folder, start, arguments)
    # the others are still verified: a missing emulator is an outcome, too
    except (YoloquantError, OSError, subprocess.SubprocessError) as exc:
        return ProcessorCheck(processor, "error", (str(exc),))


def _run(folder: Path, start: Launch, arguments: tuple[str, ...]) -> ProcessorCheck:
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
        report = Path(scratch) / "verify.json"
        command = [*start.command, "-m", PACKAGE, "verify", f"bundle={folder}", f"json={report}", *arguments]
        done = subprocess.run(
            command,
            env={**start.variables(folder), "PYTHONDONTWRITEBYTECODE": "1"},  # a bundle holds no other file
            # not in the bundle, whose files are counted, and not where a package of the same name may lie
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode not in _ANSWERED or not report.is_file():
            # the last line: Python's own errors end with what went wrong
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise TargetError(f"verify ended with status {done.returncode}: {last}")
        details = json.loads(report.read_text(encoding="utf-8"))
    lines = tuple(line for line in done.stdout.splitlines() if line.strip())
    return ProcessorCheck(start.processor, details["result"], lines, start.emulated, details)
