"""Compile one network for one chip; run as a process of its own, because a bad network can kill the compiler.

Usage: ``python -m yoloquant.targets.qnn.compile_worker MODEL.onnx SOC_MODEL FOLDER``. It writes the compiled form as
``context.onnx`` into the folder, and beside it the graph that the NPU was given and what it was not given, as JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ...errors import YoloquantError
from ...runtime.device.qnn_session import QnnSession

COMPILED, TRACE = "context.onnx", "qnn_op_trace.json"


def main(argv: list[str]) -> int:
    """Compile.

    Args:
        argv: The model, Qualcomm's number of the chip, and the folder to write to.

    Returns:
        0, or 1 with the reason on standard error.
    """
    model, soc_model, folder = Path(argv[0]), int(argv[1]), Path(argv[2])
    settings = {
        "ep.context_enable": "1",
        "ep.context_file_path": str(folder / COMPILED),
        "ep.context_embed_mode": "1",  # one file
    }
    choices = {
        "htp_graph_finalization_optimization_mode": "3",  # the longest preparation, the fastest graph
        # outside of the compiled graph, the provider in ONNX Runtime for Android could not read what it notes instead
        "offload_graph_io_quantization": "0",
        "dump_json_qnn_graph": "1",
        "json_qnn_graph_dir": str(folder),
        # which says what would stay on the CPU, and why; also where nothing is compiled for that
        "enable_framework_op_trace": "1",
        "framework_op_trace_dir": str(folder),
    }
    try:
        QnnSession(model, soc_model, settings, choices)
    except YoloquantError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
