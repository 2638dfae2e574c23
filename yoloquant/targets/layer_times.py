"""What each layer of a float artifact costs, from the runtime's own profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.backends.openvino import find_xml, shared_core, unreported

RUNS, WARMUP = 40, 5
QUANTILE = 0.25  # other work on the machine only ever makes a run slower


def openvino_times(path: Path, image: np.ndarray, threads: int | None) -> dict[str, float]:
    """Milliseconds of every weighted layer of an IR on the CPU in float32.

    Args:
        path: The IR's folder.
        image: float32 NCHW.
        threads: Threads of one inference; None uses every core.

    Returns:
        By the name of the layer's weight; what runs between two weighted layers counts with the first.
    """
    core = shared_core()
    owners = {
        op.get_friendly_name(): _weight(op)
        for op in core.read_model(str(find_xml(path))).get_ordered_ops()
        if op.get_type_name() in {"Convolution", "GroupConvolution", "ConvolutionBackpropData"}
    }
    # f32 said aloud: on CPUs with bf16 OpenVINO would take that, and layers would be compared in two precisions
    config: dict[str, Any] = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    with unreported():
        request = core.compile_model(str(find_xml(path)), "CPU", config).create_infer_request()
    runs = []
    for _ in range(RUNS):
        request.infer([image])
        nodes = request.profiling_info
        runs.append([(owners.get(n.node_name), n.real_time.total_seconds() * 1e3) for n in nodes])
    return attributed(runs[WARMUP:])


def _weight(op: Any) -> str:
    """Name of the constant that a convolution multiplies with."""
    node = op.input_value(1).get_node()
    # a Convert or a Reshape may stand between, of grouped and of compressed weights
    while node.get_type_name() != "Constant" and node.get_input_size():
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())


def onnxruntime_times(path: Path, image: np.ndarray, threads: int | None) -> dict[str, float]:
    """The same of an ONNX file in ONNX Runtime on the CPU.

    Args:
        path: The file.
        image: float32 NCHW.
        threads: Threads within an operation; None uses every core.
    """
    import onnx
    import onnxruntime

    # Names alone are wanted, so weights that lie beside the file are left there.
    nodes = [n for n in onnx.load(path, load_external_data=False).graph.node if n.op_type in {"Conv", "ConvTranspose"}]
    # By the output too: ONNX Runtime names a convolution after it when it moves it to its blocked layout (_nchwc).
    owners = {name: n.input[1] for n in nodes for name in (n.name, n.output[0])}
    with tempfile.TemporaryDirectory() as folder:
        settings = onnxruntime.SessionOptions()
        settings.enable_profiling, settings.profile_file_prefix = True, str(Path(folder) / "profile")
        settings.log_severity_level = 3
        if threads:
            settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: image}
        for _ in range(RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs: list[list[tuple[str | None, float]]] = []
    # A run is noted when it is over, with the time at which it began: sorted, it stands in front of its operations.
    for event in sorted((e for e in events if "ts" in e), key=lambda e: int(e["ts"])):
        if event["name"] == "model_run":
            runs.append([])
        elif event.get("cat") == "Node" and event["name"].endswith(_KERNEL) and runs:
            name = event["name"].removesuffix(_KERNEL).removesuffix("_nchwc")
            runs[-1].append((owners.get(name), event["dur"] / 1e3))
    return attributed(runs[WARMUP:])


_KERNEL = "_kernel_time"


def attributed(runs: Iterable[Iterable[tuple[str | None, float]]]) -> dict[str, float]:
    """Milliseconds by layer (lower quartile of the runs).

    Args:
        runs: For every run the executed operations in order: the weight that each multiplies with (None for others),
            and its milliseconds.

    Returns:
        By weight. Operations before the first weighted one count with that.
    """
    found: Mapping[str, list[float]] = defaultdict(list)
    for run in runs:
        sums: dict[str, float] = {}
        owner, early = None, 0.0
        for weight, ms in run:
            owner = weight or owner
            if owner is None:
                early += ms
            else:
                sums[owner] = sums.get(owner, early) + ms
                early = 0.0
        for name, ms in sums.items():
            found[name].append(ms)
    return {name: float(np.quantile(times, QUANTILE)) for name, times in found.items()}
