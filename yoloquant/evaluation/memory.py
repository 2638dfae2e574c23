"""Peak memory of an artifact: a process of its own loads it and runs a few inferences, as a device would."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

from ..runtime.device.sensors import memory
from ..targets.exports import load_exports
from ..types import ExportedModel

logger = logging.getLogger(__name__)

RUNS = 3
TIMEOUT_S = 120


def peak_memory(exported: ExportedModel, threads: int) -> int | None:
    """Measure peak resident memory, the Python process and the runtime's libraries included.

    Args:
        exported: An artifact on the list of its folder.
        threads: Threads of the runtime.

    Returns:
        Bytes; None if the platform does not tell or the process failed.
    """
    command = [sys.executable, "-m", "yoloquant.evaluation.memory", str(exported.path), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        # The last line: libraries may print before it.
        value = json.loads(done.stdout.splitlines()[-1])["peak_memory_bytes"]
    except (subprocess.SubprocessError, OSError, ValueError, KeyError, IndexError) as exc:
        logger.warning("peak memory of %s was not measured: %s", exported.path.name, exc)
        return None
    return int(value) if value else None


def _main(path: Path, threads: int) -> None:
    import numpy as np

    from .. import targets

    (exported,) = load_exports(path)
    runner = targets.get(exported.target).load(exported, threads)
    image = np.zeros((1, exported.info.channels, *exported.info.imgsz), np.float32)
    for _ in range(RUNS):
        runner(image)
    json.dump({"peak_memory_bytes": _peak_rss()}, sys.stdout)


def _peak_rss() -> int | None:
    """VmHWM where there is /proc: unlike ``ru_maxrss`` it begins anew at exec, without the parent's peak."""
    peak = memory()[1]
    return None if peak is None else round(peak * 1e6)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
