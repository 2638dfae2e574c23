"""What each layer of an artifact costs, from the runtime's own profiler.

An operation that multiplies with a layer's weights is that layer's, and so is what works on its result: activations,
and whatever quantizes, dequantizes and requantizes it.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.backends import BackendOptions
from ..runtime.backends.onnxruntime import session_settings
from ..runtime.backends.openvino import find_xml, shared_core, unreported

RUNS, WARMUP = 40, 5
QUANTILE = 0.25  # other work on the machine only ever makes a run slower
_KERNEL = "_kernel_time"
_BLOCKED = "_nchwc"
_POINT = ":weight"

Operation = tuple[str, Sequence[str], Sequence[str], Sequence[str]]
"""What a runtime executes: its name, names that the file knows it by, tensors that it reads, and those it makes."""


def openvino_times(path: Path, image: np.ndarray, threads: int | None) -> dict[str, float]:
    """Milliseconds of every weighted layer of an IR on the CPU, float operations in float32.

    Args:
        path: The IR's folder.
        image: float32 NCHW.
        threads: Threads of one inference; None uses every core.

    Returns:
        By the name of the layer's weight, see ``owners``.
    """
    core = shared_core()
    weights = {
        op.get_friendly_name(): _weight(op)
        for op in core.read_model(str(find_xml(path))).get_ordered_ops()
        if op.get_type_name() in {"Convolution", "GroupConvolution", "ConvolutionBackpropData"}
    }
    # f32 said aloud: on CPUs with bf16 OpenVINO would take that, and layers would be compared in two precisions
    config: dict[str, Any] = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    with unreported():
        compiled = core.compile_model(str(find_xml(path)), "CPU", config)
    request = compiled.create_infer_request()
    owner = owners(map(_executed, compiled.get_runtime_model().get_ordered_ops()), weights)
    runs = []
    for _ in range(RUNS):
        request.infer([image])
        runs.append([(owner.get(n.node_name), n.real_time.total_seconds() * 1e3) for n in request.profiling_info])
    return attributed(runs[WARMUP:])


def _executed(op: Any) -> Operation:
    """An operation of a compiled network: its name, those of what was fused into it, and of what it reads."""
    name = op.get_friendly_name()
    fused = str(op.get_rt_info()["originalLayersNames"].value).split(",")
    return name, (name, *fused), [i.get_source_output().get_node().get_friendly_name() for i in op.inputs()], [name]


def _weight(op: Any) -> str:
    """Name of the parameter that a convolution multiplies with."""
    node = op.input_value(1).get_node()
    # a Convert or a Reshape may stand between, of grouped and of compressed weights
    while node.get_type_name() != "Constant" and node.get_input_size():
        node = node.input_value(0).get_node()
    return _parameter(node.get_friendly_name())


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
    nodes = onnx.load(path, load_external_data=False).graph.node
    stored = {n.output[0]: n.input[0] for n in nodes if n.op_type == "DequantizeLinear"}
    convolutions = [n for n in nodes if n.op_type in {"Conv", "ConvTranspose"}]
    # By the output too: ONNX Runtime names a convolution after it when it moves it to its blocked layout.
    weights = {
        name: _parameter(stored.get(n.input[1], n.input[1])) for n in convolutions for name in (n.name, n.output[0])
    }
    with tempfile.TemporaryDirectory() as folder:
        # those of the backend: whether products are added exactly decides how fast integers are
        settings = session_settings(onnxruntime, BackendOptions(threads=threads))
        settings.enable_profiling, settings.profile_file_prefix = True, str(Path(folder) / "profile")
        # the graph that is really executed: an event of the profile names an operation and not what it reads
        optimized = Path(folder) / "optimized.onnx"
        settings.optimized_model_filepath = str(optimized)
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: image}
        for _ in range(RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        executed = onnx.load(optimized, load_external_data=False).graph.node
    # integer convolutions have names that ONNX Runtime makes up; their weights keep theirs, with something appended
    weights |= {name: _parameter(name) for node in executed for name in node.input if _POINT in name}
    owner = owners(((n.name, (n.name.removesuffix(_BLOCKED), *n.input), n.input, n.output) for n in executed), weights)
    runs: list[list[tuple[str | None, float]]] = []
    # A run is noted when it is over, with the time at which it began: sorted, it stands in front of its operations.
    for event in sorted((e for e in events if "ts" in e), key=lambda e: int(e["ts"])):
        if event["name"] == "model_run":
            runs.append([])
        elif event.get("cat") == "Node" and event["name"].endswith(_KERNEL) and runs:
            runs[-1].append((owner.get(event["name"].removesuffix(_KERNEL)), event["dur"] / 1e3))
    return attributed(runs[WARMUP:])


def _parameter(constant: str) -> str:
    """Name of the parameter that a constant holds; a quantized one is called after its point."""
    module, quantized, _ = constant.partition(_POINT)
    return f"{module}.weight" if quantized else constant


def owners(operations: Iterable[Operation], weights: Mapping[str, str]) -> dict[str, str]:
    """The layer that every executed operation belongs to.

    Args:
        operations: In execution order.
        weights: Weight of every convolution, by the names that the file knows it by.

    Returns:
        By the operation's name the weight that it multiplies with, else that of whose result it works on first; what
        stands in front of every layer is left out.
    """
    found: dict[str, str] = {}
    made: dict[str, str] = {}
    for name, known, inputs, outputs in operations:
        own = (weights[each] for each in known if each in weights)
        owner = next(own, None) or next((made[each] for each in inputs if each in made), None)
        if owner is not None:
            found[name] = owner
            made.update(dict.fromkeys(outputs, owner))
    return found


def attributed(runs: Iterable[Iterable[tuple[str | None, float]]]) -> dict[str, float]:
    """Milliseconds by layer (lower quartile of the runs).

    Args:
        runs: For every run the executed operations in order: the weight that each belongs to (None if that is not
            known), and its milliseconds.

    Returns:
        By weight. An operation without one counts with that before it, those before the first with the first.
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
