"""Parse and build one ONNX file with TensorRT-RTX; run as a process of its own, because a bad model can kill it.

Usage: ``python -m yoloquant.targets.tensorrt.rtx_worker MODEL.onnx RESULT.json BUILD.log``. The result is written after
each stage, so that a crash while building still tells what the parser said. No GPU is needed: TensorRT-RTX compiles
ahead of time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Any


def main(argv: list[str]) -> int:
    """Run both stages.

    Args:
        argv: Paths of the model, of the result to write and of the log to write.

    Returns:
        Exit code 0, whatever came out: only a process that did not get to its end returns another.
    """
    model, result, log = (Path(arg) for arg in argv)
    with log.open("w", encoding="utf-8", errors="replace") as sink:
        _check(model, result, sink)
    return 0


def _check(model: Path, result: Path, sink: IO[str]) -> None:
    import tensorrt_rtx as trt

    logger = _logger(trt, sink)
    outcome: dict[str, Any] = {"version": trt.__version__, "parsed": False, "errors": [], "built": False}
    # At once: if the parser kills the process, the version at least is known.
    _write(result, outcome)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    outcome["parsed"] = bool(parser.parse_from_file(str(model)))
    outcome["errors"] = [_error(parser.get_error(i)) for i in range(parser.num_errors)]
    _write(result, outcome)
    if outcome["parsed"]:
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the log does not name the layers
        outcome["built"] = builder.build_serialized_network(network, config) is not None
        _write(result, outcome)


def _error(error: Any) -> dict[str, str]:
    return {"node": error.node_name(), "operator": error.node_operator(), "message": error.desc()}


def _write(path: Path, outcome: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(outcome), encoding="utf-8")
    os.replace(part, path)


def _logger(trt: Any, sink: IO[str]) -> Any:
    class FileLogger(trt.ILogger):  # type: ignore[misc]  # an untyped binding
        """Sends every message, verbose ones included, to the log file at once, so that a crash loses none."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            sink.write(f"[{severity.name}] {message}\n")
            sink.flush()

    return FileLogger()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
