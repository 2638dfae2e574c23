"""Qualcomm's simulator of the Hexagon NPU in a process of its own, because it may crash or never end.

The process is started with one JSON argument, ``{"path", "soc_model"}``. It answers in the messages of
``core.messages``: first ``{"version", "shape"}`` as JSON, then for every image (.npy) the outputs (.npz). An error is a
message that starts with ``!``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Tuple

import numpy as np

from ..core.messages import read_message, write_message
from ..errors import TargetError, YoloquantError
from .qnn_session import QnnSession

TIMEOUT_S = 600.0


class HtpSimulator:
    """A network in the simulator.

    Args:
        path: The ``.onnx``.
        soc_model: Qualcomm's number of the chip.
        timeout_s: How long compiling, or one image, may take.

    Attributes:
        version: Version of Qualcomm's package.
        shape: Shape of the input.

    Raises:
        TargetError: The network cannot be loaded.
    """

    def __init__(self, path: Path, soc_model: int, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s, self._expired = timeout_s, False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        request = json.dumps({"path": str(path.resolve()), "soc_model": soc_model})
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
        )
        try:
            facts = json.loads(self._answer())
        except BaseException:
            self.close()
            raise
        self.version, self.shape = str(facts["version"]), tuple(facts["shape"])

    def run(self, tensor: np.ndarray) -> Tuple[np.ndarray, ...]:
        """Run one image.

        Raises:
            TargetError: The simulator failed, crashed or takes too long.
        """
        packed = io.BytesIO()
        np.save(packed, tensor)
        with np.load(io.BytesIO(self._answer(packed.getvalue())), allow_pickle=False) as found:
            return tuple(found[f"arr_{i}"] for i in range(len(found.files)))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was still to be written has no reader any more
                    stream.close()

    def _answer(self, question: "bytes | None" = None) -> bytes:
        assert self._process.stdout is not None and self._process.stdin is not None
        watch = threading.Timer(self._timeout_s, self._expire)
        watch.daemon = True
        watch.start()
        try:
            # Under the watch, too: an image is larger than a pipe, and fills one that nobody reads.
            if question is not None:
                with contextlib.suppress(OSError):  # it has ended: why is said below
                    write_message(self._process.stdin, question)
            found = read_message(self._process.stdout)
        finally:
            watch.cancel()
        if found is None:
            raise TargetError(self._ended())
        if found.startswith(b"!"):
            raise TargetError(found[1:].decode(errors="replace"))
        return found

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def _ended(self) -> str:
        code = self._process.wait()
        if self._expired:
            return f"the NPU's simulator gave no answer within {self._timeout_s:g} s and was ended; use a smaller imgsz"
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"the NPU's simulator crashed (status {code}): {(lines or ['no output'])[-1]}"


def _environment() -> "dict[str, str]":
    root = Path(__file__).resolve().parents[__name__.count(".")]  # the process must import this very package
    search = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": search}


def main(request: str) -> int:
    """Answer images until the input ends.

    Args:
        request: See the module.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between messages
    try:
        given = json.loads(request)
        session = QnnSession(Path(given["path"]), int(given["soc_model"]))
        write_message(answers, json.dumps({"version": session.version, "shape": session.shape}).encode())
        while True:
            image = read_message(sys.stdin.buffer)
            if image is None:
                return 0
            packed = io.BytesIO()
            np.savez(packed, *session.run(np.load(io.BytesIO(image), allow_pickle=False)))
            write_message(answers, packed.getvalue())
    except YoloquantError as exc:
        write_message(answers, ("!" + str(exc)).encode())
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
