"""The ``yoloquant`` command: the only place that prints, draws progress bars and sets exit codes."""

from __future__ import annotations

import logging
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..errors import OutputError, SourceError, TargetError, YoloquantError
from ..io import remove_unused
from .parser import help_of, help_text, module_of, read, verb_named

# 2 as argparse has it, 70 is sysexits' EX_SOFTWARE, 130 is 128 + SIGINT
EXIT_USAGE, EXIT_TARGET, EXIT_BUG, EXIT_INTERRUPTED = 2, 4, 70, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``yoloquant`` command.

    Args:
        arguments: What follows the command's name; the process's own if None.

    Returns:
        The exit code: 0 pass, 1 fail, 2 usage or bad input, 3 inconclusive, 4 a target could not be built or run, 70 a
        bug, whose traceback is written to a file, and 130 interrupted.
    """
    # standard output is for results, which may go through a pipe
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    # before Ultralytics is imported, which reads it once
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # PyTorch's spinning threads crawl on a busy machine
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return _do(words)
    except KeyboardInterrupt:
        remove_unused()
        print("\ninterrupted; nothing half-written was left behind", file=sys.stderr)
        return EXIT_INTERRUPTED
    except YoloquantError as exc:
        remove_unused()
        print(f"error: {exc}", file=sys.stderr)
        # the input was right and the machine was not: a script may try again elsewhere
        return EXIT_TARGET if isinstance(exc, (TargetError, SourceError)) else EXIT_USAGE
    # a disk that is full or a file without permission is no bug
    except OSError as exc:
        print(f"error: {OutputError(f'reading or writing failed: {exc}')}", file=sys.stderr)
        return EXIT_USAGE
    except Exception as exc:  # Python's own exit code for it is 1, which says that a gate failed
        print(f"error: a bug of yoloquant: {type(exc).__name__}: {_one_line(exc)}; {_logged(words)}", file=sys.stderr)
        return EXIT_BUG


def _do(words: Sequence[str]) -> int:
    if not words:
        print(help_text())
        return EXIT_USAGE
    if words[0] in ("-h", "--help", "help"):
        print(help_of(verb_named(words[1])) if len(words) > 1 else help_text())
        return 0
    if words[0] == "--version":
        print(f"yoloquant {__version__}")
        return 0
    # before anything is read: help must come whatever else is wrong with the line
    if any(word in ("-h", "--help") for word in words[1:]):
        print(help_of(verb_named(words[0])))
        return 0
    call = read(words)
    return int(module_of(call.verb).run(call))


def _one_line(exc: Exception) -> str:
    text = " ".join(str(exc).split())
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _logged(words: Sequence[str]) -> str:
    """Write the traceback to a file of its own; where that is, for people."""
    try:
        # not in the working folder, which may be what could not be written
        handle, name = tempfile.mkstemp(prefix="yoloquant-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(f"yoloquant {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
            stream.write(f"yoloquant {' '.join(words)}\n\n{traceback.format_exc()}")
    except OSError:  # no room even for that
        traceback.print_exc()
        return "please report it with the lines above"
    return f"please report it with {Path(name)}"


if __name__ == "__main__":
    sys.exit(main())
