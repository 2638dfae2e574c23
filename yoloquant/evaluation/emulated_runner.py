"""An artifact on another processor: a worker process that looks like any other runner."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np

from .. import runtime
from ..errors import TargetError
from ..runtime.core.messages import read_message, write_message
from ..runtime.core.runner import Runner
from ..types import ExportedModel, HeadLayout
from .processors import NATIVE, Launch

logger = logging.getLogger(__name__)

TIMEOUT_S = 600.0
PACKAGE = "yoloquant_runtime"  # what bundles call the runtime: it imports nothing outside itself
_T = TypeVar("_T")


class EmulatedRunner(Runner):
    """A network in a process of another processor; its outputs come back decoded.

    Args:
        exported: The artifact.
        backend: The runtime that opens it.
        launch: How the process is started.
        threads: Threads of one inference.
        timeout_s: How long starting, or one inference, may take.

    Raises:
        TargetError: The process does not come up.
    """

    def __init__(
        self, exported: ExportedModel, backend: str, launch: Launch, threads: int, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.info, self.layout = exported.info, exported.info.layout
        self.launch, self.timeout_s = launch, timeout_s
        request = {
            "backend": backend,
            "path": str(exported.path.resolve()),
            "info": asdict(exported.info),
            "raw": exported.layout is HeadLayout.RAW,
            "threads": threads,
            "precision": "f32",  # bfloat16 beside kernels without VNNI is a processor that does not exist
            "exact_sums": launch.processor == NATIVE,  # elsewhere: what the file does in anybody's program
        }
        self._folder = tempfile.TemporaryDirectory(prefix="yoloquant-")
        # The runtime alone, as in a bundle: the whole package imports what the other processor's Python lacks.
        (Path(self._folder.name) / PACKAGE).symlink_to(Path(runtime.__file__).resolve().parent)
        # A file and not a pipe, which nobody reads meanwhile: once full, it would stop the process.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        command = [*launch.command, "-m", f"{PACKAGE}.apps.infer_worker", json.dumps(request)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=launch.variables(self._folder.name),
        )
        try:
            logger.info("cpu=%s: %s %s", launch.processor, backend, self._answer().decode())
        # Also for Ctrl-C, or the emulator would go on by itself.
        except BaseException:
            self.close()
            raise

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run one image there; see ``Runner.infer``. The outputs are decoded already.

        Raises:
            TargetError: The process has ended, or takes too long.
        """
        packed = io.BytesIO()
        np.save(packed, np.ascontiguousarray(image, np.float32))
        with np.load(io.BytesIO(self._answer(packed.getvalue())), allow_pickle=False) as found:
            return tuple(found[f"arr_{i}"] for i in range(len(found.files)))

    def close(self) -> None:
        """End the process."""
        # It holds nothing that would have to be saved.
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was still to be written has no reader any more
                    stream.close()
        self._folder.cleanup()

    def _answer(self, question: bytes | None = None) -> bytes:
        reader, writer = self._process.stdout, self._process.stdin
        assert reader is not None and writer is not None

        def ask() -> bytes | None:
            # Under the time limit, too: an image is larger than a pipe, and fills one that nobody reads.
            if question is not None:
                try:
                    write_message(writer, question)
                except OSError:  # nobody is there any more
                    return None
            return read_message(reader)

        found = _within(self.timeout_s, ask)
        if isinstance(found, TimeoutError):
            # at once and not in `close`, which comes when all others are through: it would take a core from them
            self._process.kill()
            raise TargetError(
                f"cpu={self.launch.processor}: no answer within {self.timeout_s:g} s; the process was ended"
            )
        if found is None:
            raise TargetError(self._ended())
        if found.startswith(b"!"):
            raise TargetError(f"cpu={self.launch.processor}: {found[1:].decode(errors='replace')}")
        return found

    def _ended(self) -> str:
        code = self._process.wait(timeout=self.timeout_s)
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"cpu={self.launch.processor}: the process ended with status {code}: {(lines or ['no output'])[-1]}"


def _within(seconds: float, action: Callable[[], _T]) -> _T | TimeoutError:
    """The result of something that may never return; its thread is left behind if it does not."""
    found: list[_T] = []
    # A thread, since a read from a pipe takes no time limit.
    thread = threading.Thread(target=lambda: found.append(action()), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else TimeoutError()
