"""Snapdragon: chips behind the colon, a pair behind every move, raw heads, and what the compiler says of a network."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fake_qnn import fake_packages, network
from tiny_models import tiny_export_artifact, tiny_images

from yoloquant import targets
from yoloquant.errors import TargetError, UsageError
from yoloquant.graph.head_levels import head_levels
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.float_layers import layer_of
from yoloquant.quantization.layer_precision import give_precision, widen_layers
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.backends.qnn import compiled_path
from yoloquant.runtime.device.snapdragon import SOCS
from yoloquant.runtime.tasks import spec_of
from yoloquant.targets.onnx.emit import emit
from yoloquant.targets.onnx.read_scales import read_scales
from yoloquant.targets.qnn import target as module
from yoloquant.targets.qnn.compile import compile_for_soc, left_out, read_graph
from yoloquant.targets.qnn.constants import quantize_scalars
from yoloquant.targets.qnn.scheme import SCHEME
from yoloquant.targets.qnn.target import EMISSION, QnnTarget
from yoloquant.targets.qnn.wide import to_wide_opset, widen
from yoloquant.targets.qnn.widths import unify_widths
from yoloquant.types import ExportedModel, HeadLayout, Task

SOC = SOCS["8gen3"]


def artifact() -> Artifact:
    """A YOLO11 with attention: products of computed tensors, splits, reshapes and transposes."""
    return tiny_export_artifact("yolo11", "detect", (SCHEME,))


@lru_cache(maxsize=1)
def emitted() -> onnx.ModelProto:
    """The network as it is written."""
    known = artifact()
    ends = head_levels(known.graph)
    return emit(known.graph, known.plan_for(SCHEME), EMISSION, rewrites=[quantize_scalars], ends=ends)


@pytest.mark.parametrize(
    ("name", "soc", "wanted"),
    [
        ("qnn", None, "qnn"),
        ("snapdragon", None, "qnn"),
        ("snapdragon:8gen3", "8gen3", "qnn:8gen3"),
        ("qnn:SM8750", "8elite", "qnn:8elite"),
        ("qnn:int8", None, "qnn"),
        ("qnn:fp32", None, "qnn:fp32"),
        ("qnn:w8a16", None, "qnn:w8a16"),
        ("snapdragon:8gen3-w8a16", "8gen3", "qnn:8gen3-w8a16"),
    ],
)
def test_a_variant_is_a_chip_or_a_precision(name: str, soc: str | None, wanted: str) -> None:
    found = targets.get(name)
    assert isinstance(found, QnnTarget) and (found.soc.name if found.soc else None) == soc
    assert found.wanted == wanted == targets.get(wanted).wanted
    assert found.precision == next((p for p in ("fp32", "w8a16") if name.endswith(p)), "int8")


def test_an_unknown_chip_lists_what_is_allowed() -> None:
    with pytest.raises(
        UsageError, match=r"'qnn' has no variant '9gen9'; allowed are int8, fp32, w8a16, 8gen2, .*8elite-gen5"
    ):
        targets.get("qnn:9gen9")


def test_another_machine_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "why_not_here", lambda: "it needs Linux")
    nothing: Any = None  # refused before anybody looks at it
    with pytest.raises(TargetError, match="it needs Linux"):
        targets.get("qnn").check(nothing)


def test_every_operation_stands_between_pairs() -> None:
    model = emitted()
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    read: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            read.setdefault(name, set()).add(node.op_type)
    kinds = set()
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        kinds.add(node.op_type)
        read_here = node.input[:1] if node.op_type in {"Resize", "Reshape", "Split"} else node.input  # what, not how
        assert {made.get(i) for i in read_here} == {"DequantizeLinear"}, node.name
        assert {kind for o in node.output for kind in read[o]} == {"QuantizeLinear"}, node.name
    assert kinds >= {
        "Conv",
        "Sigmoid",
        "Mul",
        "Add",
        "Concat",
        "MaxPool",
        "Resize",
        "Split",
        "MatMul",
        "Softmax",
        "Reshape",
    }


@pytest.mark.parametrize("factor", [0.125, -0.3, 7.0])
def test_a_constant_factor_stays_exact(factor: float) -> None:
    import onnx_ir as ir
    from onnx import helper, numpy_helper

    wanted = numpy_helper.from_array(np.float32(factor).reshape(()), "factor")
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"], name="m")], "g", *[[e] for e in ends], [wanted]
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert quantize_scalars(model) == 1 and quantize_scalars(model) == 0
    written = ir.to_proto(model)
    onnx.checker.check_model(written)
    integer, scale, zero = (
        next(numpy_helper.to_array(i) for i in written.graph.initializer if i.name == f"m:constant/{kind}")
        for kind in ("int", "scale", "zero_point")
    )
    assert (np.float32(integer) - np.float32(zero)) * scale == np.float32(factor) and scale > 0


def test_weights_are_int8_and_the_rest_is_uint8() -> None:
    model = emitted()
    types = {i.name: i.data_type for i in model.graph.initializer}
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    by_output = {o: n for n in model.graph.node for o in n.output}
    for conv in convs:
        weight, bias = (types[by_output[name].input[0]] for name in conv.input[1:])
        assert (weight, bias) == (onnx.TensorProto.INT8, onnx.TensorProto.INT32)
    zeros = [types[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(zeros) > 50 and set(zeros) == {onnx.TensorProto.UINT8}


def test_scales_are_the_plans() -> None:
    plan = artifact().plan_for(SCHEME)
    found = read_scales(emitted(), [p.name for p in plan.points])
    for point in plan.points:
        assert point.params is not None
        assert np.array_equal(found[point.name][0], point.params.scale), point.name
        assert np.array_equal(found[point.name][1], point.params.zero_point), point.name


def test_16_bits_keep_the_ranges() -> None:
    """Calibrated ranges get 16 times as wide, learned ones keep their ends, and 0 is 0 in each."""
    plan = artifact().plan_for(SCHEME)
    learned = next(p for p in plan.activations if not p.fixed)
    plan = replace(plan, points=tuple(replace(p, algorithm="learned") if p is learned else p for p in plan.points))
    wide = widen(plan)
    assert wide.weights == plan.weights and wide.scheme == plan.scheme
    for old, new in zip(plan.activations, wide.activations, strict=True):
        assert old.params is not None and new.params is not None and new.spec.bits == 16
        (low, high), (lower, higher) = old.params.range(old.spec), new.params.range(new.spec)
        if new.fixed:
            assert (float(new.params.scale), int(new.params.zero_point)) == (2.0**-16, -(2**15))
        elif old.name == learned.name:
            np.testing.assert_allclose([lower, higher], [low, high], rtol=1e-5)
        else:
            assert new.params.scale * 16 == old.params.scale and lower <= low * 16 and higher >= high * 16


def test_16_bits_and_a_decode_on_the_host_are_the_simulation(tmp_path: Path) -> None:
    """Computed pair by pair, with biases in float, whose steps would disturb; weights alone are left as errors."""
    runtime = pytest.importorskip("onnxruntime")
    known, (image,) = artifact(), tiny_images(1, seed=1)
    plan, ends = widen(known.plan_for(SCHEME)), head_levels(known.graph)
    rewrites = [partial(quantize_scalars, bits=16), to_wide_opset]
    model = emit(known.graph, plan, replace(EMISSION, int32_bias=False), rewrites=rewrites, ends=ends)
    types = {i.name: i.data_type for i in model.graph.initializer}
    zeros = {types[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    assert zeros == {onnx.TensorProto.UINT16}
    found = read_scales(model, [p.name for p in plan.points])
    for point in plan.points:
        assert point.params is not None and np.array_equal(found[point.name][1], point.params.zero_point), point.name
    got, want, exact = _decoded(runtime, model, image), _simulated(plan, image), _simulated(None, image)
    onnx.save(model, tmp_path / "wide.onnx")
    written = ExportedModel("qnn", tmp_path / "wide.onnx", known.info, HeadLayout.RAW, precision="w8a16")
    (loaded,) = targets.get("qnn").load(written, threads=1)(image)
    np.testing.assert_array_equal(loaded, got)
    coarse = np.abs(_simulated(known.plan_for(SCHEME), image) - exact).mean()
    assert 0 < np.abs(want - exact).mean() < 0.7 * coarse
    assert np.abs(got - want).mean() < 0.5 * np.abs(want - exact).mean()


def test_layers_of_16_bits_stand_among_those_of_8() -> None:
    import onnx_ir as ir

    runtime = pytest.importorskip("onnxruntime")
    known, (image,) = artifact(), tiny_images(1, seed=1)
    narrow = known.plan_for(SCHEME)
    # at the end: in front of many layers, one value that is rounded twice would move every result
    plan = widen_layers(known.graph, give_precision(known.graph, narrow, (), [("model.23.cv3*", "w8a16")]))
    wide = {p.name for p in plan.points if p.spec.bits == 16}
    assert {layer_of(name) for name in wide} >= set(plan.wide_layers) and len(wide) < len(plan.points) / 4
    rewrites, ends = [quantize_scalars, unify_widths, to_wide_opset], head_levels(known.graph)
    model = emit(known.graph, plan, replace(EMISSION, int32_bias=False), rewrites=rewrites, ends=ends)
    types = {i.name: i.data_type for i in model.graph.initializer}
    zeros = [types[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert set(zeros) == {onnx.TensorProto.UINT8, onnx.TensorProto.UINT16}
    # the NPU takes no operation that reads one and writes the other
    assert unify_widths(ir.from_proto(model)) == 0
    made = {output: node for node in model.graph.node for output in node.output}
    widths = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and (source := made.get(node.input[0])) is not None:
            read = [made[name] for name in source.input if name in made and made[name].op_type == "DequantizeLinear"]
            widths[node.name] = {types[node.input[2]], *(types[n.input[2]] for n in read)} & set(zeros)
    assert all(len(kinds) == 1 for name, kinds in widths.items() if not name.endswith("/wide/quantize"))
    found = read_scales(model, [p.name for p in plan.points])
    assert all(np.array_equal(found[p.name][0], p.params.scale) for p in plan.points if p.params is not None)
    got, want, exact = (_decoded(runtime, model, image), *(_simulated(p, image) for p in (plan, None)))
    assert np.abs(got - want).mean() < 0.5 * np.abs(want - exact).mean()
    # it is this plan, and not the one without such a layer
    assert np.abs(got - want).mean() < np.abs(got - _simulated(narrow, image)).mean()


def test_an_operation_of_two_widths_gets_one() -> None:
    """Values stay: an 8-bit grid is part of the finer one, and few results are rounded otherwise for a second time."""
    import onnx_ir as ir
    from onnx import helper, numpy_helper

    runtime = pytest.importorskip("onnxruntime")
    rng, values, nodes = np.random.default_rng(0), {}, []

    def pair(name: str, scale: float, zero: np.generic) -> str:
        values.update({f"{name}/scale": np.float32(scale), f"{name}/zero": zero})
        grid = [f"{name}/scale", f"{name}/zero"]
        nodes.append(helper.make_node("QuantizeLinear", [name, *grid], [f"{name}/q"], name=f"{name}/quantize"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}/q", *grid], [f"{name}/dq"], name=f"{name}/dq"))
        return f"{name}/dq"

    def constant(name: str, value: np.ndarray, scale: np.ndarray) -> str:
        values.update({name: value, f"{name}/scale": scale, f"{name}/zero": np.zeros(scale.shape, value.dtype)})
        inputs = [name, f"{name}/scale", f"{name}/zero"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}/dq"], name=f"{name}/dq", axis=0))
        return f"{name}/dq"

    scales = np.float32([0.02, 0.01])
    read = pair("x", 0.03, np.uint8(100))
    weight = constant("w", rng.integers(-127, 128, (2, 2, 1, 1)).astype(np.int8), scales)
    bias = constant("b", np.int32([500, -900]), np.float32(0.03) * scales)
    nodes.append(helper.make_node("Conv", [read, weight, bias], ["y"], name="conv"))
    narrow = pair("y", 0.001, np.uint16(30000))
    nodes.append(helper.make_node("Sigmoid", [narrow], ["z"], name="unit"))
    nodes.append(helper.make_node("Identity", [pair("z", 1 / 256, np.uint8(0))], ["out"], name="out"))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2, 64, 64]) for name in ("x", "out")]
    graph = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(v, n) for n, v in values.items()]
    )
    written = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    unified = ir.from_proto(written)
    # the convolution reads 8 bits and writes 16, the sigmoid the reverse
    assert unify_widths(unified) == 2 and unify_widths(unified) == 0
    image = {"x": rng.normal(0, 1, (1, 2, 64, 64)).astype(np.float32)}
    before, after = (_computed(runtime, model, image)[0] for model in (written, ir.to_proto(unified)))
    steps = np.abs(after - before) * 256
    assert steps.max() <= 1 and 0 < (steps > 0).mean() < 0.01 and before.std() > 0.1


def test_a_bias_that_another_layer_reads_too_stays_as_it_is_there() -> None:
    """The first and the last convolution move to 16 bits; the one between them reads and writes 8."""
    import onnx_ir as ir

    runtime = pytest.importorskip("onnxruntime")
    written = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21]>
        g (float[1, 1, 1, 64] x) => (float[1, 1, 1, 64] a, float[1, 1, 1, 64] b, float[1, 1, 1, 64] c)
        <float s = {0.03125}, uint8 z = {128}, float f = {0.001}, uint16 z16 = {32768}, int8[1, 1, 1, 1] w = {64},
         float sw = {0.015625}, int8 zw = {0}, int32[1] b32 = {512}, float sb = {0.00048828125}, int32 zb = {0}> {
            q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
            weight = DequantizeLinear(w, sw, zw)  bias = DequantizeLinear(b32, sb, zb)
            y = Conv(d, weight, bias)  qy = QuantizeLinear(y, f, z16)  a = DequantizeLinear(qy, f, z16)
            u = Conv(d, weight, bias)  qu = QuantizeLinear(u, s, z)  b = DequantizeLinear(qu, s, z)
            v = Conv(d, weight, bias)  qv = QuantizeLinear(v, f, z16)  c = DequantizeLinear(qv, f, z16)
        }""")
    unified = ir.from_proto(written)
    assert unify_widths(unified) == 2 and unify_widths(unified) == 0
    image = {"x": np.linspace(-2, 2, 64, dtype=np.float32)[None, None, None]}
    before, after = (_computed(runtime, model, image) for model in (written, ir.to_proto(unified)))
    for old, new in zip(before, after, strict=True):
        assert np.abs(new - old).max() < 0.002 and old.std() > 0.1


def test_a_result_on_two_narrow_grids_keeps_both() -> None:
    """The first holds half of what the second does."""
    import onnx_ir as ir

    runtime = pytest.importorskip("onnxruntime")
    written = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21]>
        g (float[1, 64] x) => (float[1, 64] a, float[1, 64] b)
        <float s = {0.001}, uint16 z = {32768}, float s1 = {0.002}, float s2 = {0.004}, uint8 z8 = {0}> {
            q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Sigmoid(d)
            q1 = QuantizeLinear(y, s1, z8)  a = DequantizeLinear(q1, s1, z8)
            q2 = QuantizeLinear(y, s2, z8)  b = DequantizeLinear(q2, s2, z8)
        }""")
    unified = ir.from_proto(written)
    assert unify_widths(unified) == 1
    image = {"x": np.linspace(-4, 4, 64, dtype=np.float32)[None]}
    before, after = (_computed(runtime, model, image) for model in (written, ir.to_proto(unified)))
    for old, new, step in zip(before, after, (0.002, 0.004), strict=True):
        assert np.abs(new - old).max() < 1.5 * step
    assert before[1].max() > 0.9 > before[0].max(), "the first is cut off"


def _computed(runtime: Any, model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> Any:
    settings = runtime.SessionOptions()
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1  # as the target's: sums in another order differ in their last digits
    session = runtime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def _decoded(runtime: Any, model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """What the file computes pair by pair, decoded on the host."""
    raw, info = _computed(runtime, model, {"images": image}), artifact().info
    assert [o.shape[1:] for o in raw] == [(c, s, s) for c in (raw[0].shape[1], 3) for s in (8, 4, 2)]
    (found,) = spec_of(info.task).decode_raw([o.transpose(0, 2, 3, 1) for o in raw], info)
    return found


def _simulated(plan: Plan | None, image: np.ndarray) -> np.ndarray:
    """What the plan computes; the float model without one."""
    graph = artifact().graph
    with torch.inference_mode():
        return (simulate(graph, plan) if plan else graph.module)(torch.from_numpy(image)).numpy()


def test_float_operations_are_counted() -> None:
    types = {"a": 0x408, "b": 0x232, "c": 0x416, "d": 0x308}
    nodes = {
        "1": ("Quantize", "a"),
        "2": ("Conv2d", "a"),
        "3": ("Conv2d", "b"),
        "4": ("Sigmoid", "c"),
        "5": ("Reshape", "d"),
        "6": ("Dequantize", "b"),
    }
    graph = {
        "tensors": {name: {"data_type": number} for name, number in types.items()},
        "nodes": {name: {"type": kind, "output_names": [output]} for name, (kind, output) in nodes.items()},
    }
    report = read_graph(SOC, graph)
    assert report.floats == {"Conv2d": 1} and report.operations["Conv2d"] == 2
    assert report.summary() == (
        "the NPU of a Snapdragon 8 Gen 3 takes all 4 operations, 3 in integers; in float16: 1 Conv2d"
    )


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("refuse", "compiler refuses 'net.onnx': 1002: no such operation"),
        ("run", "made 0 graphs for the NPU where one was expected"),
    ],
)
def test_what_the_compiler_says_is_passed_on(
    does: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_packages(tmp_path, monkeypatch)
    with pytest.raises(TargetError, match=said):
        compile_for_soc(network(tmp_path, does), SOC)


def test_what_would_stay_on_the_cpu_is_named(tmp_path: Path) -> None:
    nodes = [
        *({"op_type": "DequantizeLinear", "node_name": f"n{i}", "reason": "per channel"} for i in range(2)),
        {"op_type": "Einsum", "node_name": "n", "reason": "unknown"},
    ]
    path = tmp_path / "trace.json"
    assert left_out(path) == ""
    path.write_text(json.dumps({"unsupported_nodes": nodes}))
    assert left_out(path) == "2 DequantizeLinear (per channel), 1 Einsum (unknown)"
    path.write_text(json.dumps({"unsupported_nodes": []}))
    assert left_out(path) == ""


def test_a_compiler_that_crashes_or_hangs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run

    def instead(code: str) -> None:
        monkeypatch.setattr(subprocess, "run", lambda line, **k: real([sys.executable, "-c", code], **k))

    instead("import os, sys; print('the last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)")
    with pytest.raises(TargetError, match=r"compiler crashed \(status -11\): the last words"):
        compile_for_soc(network(tmp_path, "run"), SOC)
    instead("import time; time.sleep(60)")
    with pytest.raises(TargetError, match=r"did not finish within 0.2 s; choose a smaller imgsz"):
        compile_for_soc(network(tmp_path, "run"), SOC, seconds=0.2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """The network as Qualcomm's compiler took it for a named chip."""
    chosen = targets.get("qnn:8gen3")
    if chosen.missing():
        pytest.skip(f"target 'qnn' needs {', '.join(chosen.missing())}, not installed here")
    return chosen.export(artifact(), tmp_path_factory.mktemp("qnn"), "tiny")


@pytest.mark.slow
def test_a_named_chip_gets_a_compiled_form(exported: ExportedModel) -> None:
    assert exported.path.name == "tiny-qnn-8gen3.onnx" and exported.layout is HeadLayout.RAW and not exported.drop_in
    facts = exported.metadata["qnn"]
    assert facts["floats"] == {} and facts["operations"]["Conv2d"] > 50
    compiled = onnx.load(compiled_path(exported.path))
    assert [n.op_type for n in compiled.graph.node] == ["EPContext"] and facts["compiled"] == "tiny-qnn-8gen3_qnn.onnx"
    assert any("simulator" in note for note in exported.notes)


@pytest.mark.slow
def test_the_simulator_finds_what_the_plan_finds(exported: ExportedModel) -> None:
    """Its arithmetic is its own: see the conformance test for how far it is from the simulation."""
    runner, (image,) = targets.get("qnn:8gen3").load(exported), tiny_images(1, seed=1)
    try:
        (got,) = runner(image)
    finally:
        runner.close()
    exact = _simulated(None, image)
    assert got.shape == exact.shape and 0 < np.abs(got - exact)[:, 4:].max() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segment", "obb", "classify"])
def test_other_tasks(task: str, tmp_path: Path) -> None:
    chosen = targets.get("qnn:8gen3")
    if chosen.missing():
        pytest.skip(f"target 'qnn' needs {', '.join(chosen.missing())}, not installed here")
    known, (image,) = tiny_export_artifact("yolo11", task, (SCHEME,)), tiny_images(1, seed=1)
    found = chosen.export(known, tmp_path, "tiny")
    assert found.metadata["qnn"]["floats"] == {}
    runner = chosen.load(found)
    try:
        got = runner(image)
    finally:
        runner.close()
    with torch.inference_mode():
        exact = known.graph.module(torch.from_numpy(image))
    exact = exact if isinstance(exact, torch.Tensor) else exact[0]
    assert got[0].shape == exact.shape and 0 < np.abs(got[0] - exact.numpy())[:, -3:].max() < 0.3


@pytest.mark.slow
def test_operations_for_the_cpu_are_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn")
    known = tiny_export_artifact("yolo11", "pose", (SCHEME,))
    model = emit(known.graph, known.plan_for(SCHEME), EMISSION, ends=head_levels(known.graph))
    path = tmp_path / "pose.onnx"
    onnx.save(model, path)
    with pytest.raises(TargetError, match=r"cannot run 3 DequantizeLinear \(.*per-channel.*\); use another target"):
        compile_for_soc(path, SOC)


def test_pose_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QnnTarget, "require", classmethod(lambda cls: None))
    pose: Any = SimpleNamespace(info=SimpleNamespace(task=Task.POSE))
    with pytest.raises(TargetError, match="exports detect, segment, obb, classify models, got a pose model"):
        QnnTarget().check(pose)
