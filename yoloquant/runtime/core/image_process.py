"""A network in a process of its own, which may crash or never end: images go in, outputs come back within a time limit.

The process is started with one argument of JSON. It answers in the messages of ``messages``: first with what it says of
the network, then for every image (.npy) with the outputs (.npz). An error is a message that starts with ``!``.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import threading
from typing import Callable, Mapping, Sequence, Tuple

import numpy as np

from ..errors import TargetError
from .messages import read_message, write_message

Network = Callable[[np.ndarray], Sequence[np.ndarray]]


class ImageProcess:
    """The side that asks.

    Args:
        command: What starts the process, whose code calls ``answer_images``.
        environment: Its whole environment.
        timeout_s: How long starting, or one image, may take.
        prefix: What every error begins with.
        late: What an error says where it takes too long; ``{seconds}`` is the limit.
        ended: The same where the process has ended by itself, with its ``{status}`` and the ``{last}`` line it printed.

    Attributes:
        timeout_s: See above.
        hello: What it said of the network.

    Raises:
        TargetError: The network cannot be loaded.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        timeout_s: float,
        late: str,
        ended: str,
        prefix: str = "",
    ) -> None:
        self.timeout_s, self._late, self._ended, self._prefix = timeout_s, late, ended, prefix
        self._expired = False
        # a file and not a pipe, which nobody reads meanwhile: once full, it would stop the process
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=dict(environment)
        )
        try:
            self.hello = self._ask()
        except BaseException:  # also for Ctrl-C, or it would go on by itself
            self.close()
            raise

    def run(self, tensor: np.ndarray) -> Tuple[np.ndarray, ...]:
        """Run one image.

        Raises:
            TargetError: The process failed, crashed or takes too long.
        """
        packed = io.BytesIO()
        np.save(packed, tensor)
        with np.load(io.BytesIO(self._ask(packed.getvalue())), allow_pickle=False) as found:
            return tuple(found[f"arr_{i}"] for i in range(len(found.files)))

    def close(self) -> None:
        """End the process, which holds nothing that would have to be saved."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was still to be written has no reader any more
                    stream.close()

    def _ask(self, question: bytes | None = None) -> bytes:
        assert self._process.stdout is not None and self._process.stdin is not None
        watch = threading.Timer(self.timeout_s, self._expire)
        watch.daemon = True
        watch.start()
        try:
            # under the watch, too: an image is larger than a pipe, and fills one that nobody reads
            if question is not None:
                with contextlib.suppress(OSError):  # it has ended: why is said below
                    write_message(self._process.stdin, question)
            found = read_message(self._process.stdout)
        finally:
            watch.cancel()
        if found is None:
            raise TargetError(self._prefix + self._why())
        if found.startswith(b"!"):
            raise TargetError(self._prefix + found[1:].decode(errors="replace"))
        return found

    def _expire(self) -> None:
        self._expired = True
        # at once and not in `close`, which may come late: it would take a core from others
        self._process.kill()

    def _why(self) -> str:
        status = self._process.wait(timeout=self.timeout_s)
        if self._expired:
            return self._late.format(seconds=f"{self.timeout_s:g}")
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return self._ended.format(status=status, last=(lines or ["no output"])[-1])


def answer_images(load: Callable[[], Tuple[bytes, Network]]) -> int:
    """The side that answers, until its input ends; its exit status.

    Args:
        load: Loads the network: what is said of it, and what runs it.
    """
    # the descriptor and not sys.stdout: native libraries print past Python, which must not get between messages
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        hello, network = load()  # inside: that a model does not load must be told, too
        write_message(answers, hello)
        while True:
            image = read_message(sys.stdin.buffer)
            if image is None:
                return 0
            packed = io.BytesIO()
            np.savez(packed, *network(np.load(io.BytesIO(image), allow_pickle=False)))
            write_message(answers, packed.getvalue())
    except Exception as exc:  # whatever a runtime raises, the other side must hear of it
        write_message(answers, ("!" + str(exc)).encode())
        return 1
