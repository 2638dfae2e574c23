"""A network in a process of its own: images come in, decoded outputs go out. For processors that are emulated.

Started with one JSON argument, ``{"backend", "path", "info", "raw", "threads", "precision", "exact_sums"}``. Messages
are those of ``core.messages``: an image (.npy) comes in on standard input, its outputs (.npz) go out on what was
standard output, ahead of them one message with the runtime's version. An error is a message that starts with ``!``.
What libraries print goes to standard error, so that it cannot get between messages.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from ..backends import Backend, BackendOptions, open_backend
from ..core.bundle_manifest import info_from_dict
from ..core.messages import read_message, write_message


def main(request: str) -> int:
    """Answer images until the input ends.

    Args:
        request: See the module.
    """
    # The descriptor and not sys.stdout: native libraries print past Python.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        # Inside: that a model does not load must be told, too.
        backend = _open(json.loads(request))
        write_message(answers, backend.version.encode())
        while True:
            image = read_message(sys.stdin.buffer)
            if image is None:
                return 0
            outputs = backend(np.load(io.BytesIO(image), allow_pickle=False))
            packed = io.BytesIO()
            np.savez(packed, *outputs)
            write_message(answers, packed.getvalue())
    except Exception as exc:  # whatever a runtime raises, the other side must hear of it
        write_message(answers, ("!" + str(exc)).encode())
        return 1


def _open(request: Mapping[str, Any]) -> Backend:
    options = BackendOptions(
        threads=request["threads"],
        raw=request["raw"],
        precision=request["precision"],
        exact_sums=request["exact_sums"],
    )
    return open_backend(request["backend"], Path(request["path"]), info_from_dict(request["info"]), options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
