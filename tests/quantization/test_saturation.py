"""Clamped sums are counted as kernels make them, and layers that need it get safe weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pair_sums import unsafe_channels  # noqa: E402

from yoloquant.graph.trace import Graph, trace  # noqa: E402
from yoloquant.quantization.calibrate import observe, solve_plan  # noqa: E402
from yoloquant.quantization.plan import Plan  # noqa: E402
from yoloquant.quantization.safe_pairs import pairs  # noqa: E402
from yoloquant.quantization.saturation import clamped_change, measure, with_safe_weights  # noqa: E402
from yoloquant.quantization.scheme import PORTABLE, adapt, derive  # noqa: E402
from yoloquant.runtime.device.processors import has_vnni  # noqa: E402
from yoloquant.targets.litert.scheme import SCHEME as LITERT  # noqa: E402
from yoloquant.targets.onnxruntime import SCHEME  # noqa: E402
from yoloquant.types import ModelInfo, Task  # noqa: E402

HIGHEST, LOWEST = 2**15 - 1, -(2**15)


def vpmaddubsw(codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The instruction: products of unsigned and signed bytes, neighbours added, clamped to 16 bits (Intel's manual)."""
    products = codes.astype(np.int64) * weights.astype(np.int64)
    return np.clip(products[..., 0::2] + products[..., 1::2], LOWEST, HIGHEST)


@pytest.mark.parametrize("operands", [2, 8, 36])
def test_changes_are_those_of_the_instruction(operands: int) -> None:
    rng = np.random.default_rng(operands)
    codes = rng.integers(0, 256, (operands, 50)).astype(np.int32)
    codes[:, :10] = 255
    weight = rng.integers(-127, 128, (6, operands)).astype(np.int32)
    order = np.arange(operands).reshape(-1, 2)
    wanted = np.stack([vpmaddubsw(codes.T, row).sum(1) for row in weight]) - weight @ codes
    assert np.count_nonzero(wanted)
    np.testing.assert_array_equal(clamped_change(codes, weight, order), wanted)


def test_weights_of_half_range_change_nothing() -> None:
    codes = np.full((27, 5), 255, np.int32)
    weight = np.full((4, 27), 64, np.int32)
    for order in pairs(3, 9):
        assert clamped_change(codes, weight, order) is None
        assert clamped_change(codes, weight + 1, order) is not None


@pytest.mark.skipif(has_vnni() is not False, reason="this processor has VNNI, so ONNX Runtime does not clamp here")
@pytest.mark.parametrize(("channels", "kernel"), [(3, 3), (16, 1), (16, 3)])
def test_onnx_runtime_clamps_exactly_so(channels: int, kernel: int) -> None:
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    rng = np.random.default_rng(channels)
    weight = rng.integers(-127, 128, (8, channels, kernel, kernel)).astype(np.int8)
    image = rng.integers(0, 256, (1, channels, 8, 8)).astype(np.float32)
    codes = torch.nn.functional.unfold(torch.from_numpy(image), kernel)[0].reshape(channels, kernel * kernel, -1)
    columns = codes.transpose(0, 1).reshape(channels * kernel * kernel, -1).numpy().astype(np.int32)
    rows = weight.transpose(0, 2, 3, 1).reshape(8, -1).astype(np.int32)
    true = rows @ columns
    change = clamped_change(columns, rows, pairs(channels, kernel * kernel)[-1])  # MLAS lines the channels up
    assert change is not None
    step = np.float32(2.0 ** np.ceil(np.log2(np.abs(true).max() / 100)))  # a power of two: every quotient is exact
    model = _convolution(onnx, weight, step)
    plain, exact = (_run(onnxruntime, model, image, setting) for setting in ({}, {"session.x64quantprecision": "1"}))
    np.testing.assert_array_equal(exact.reshape(8, -1), _requantized(true, step))
    np.testing.assert_array_equal(plain.reshape(8, -1), _requantized(true + change, step))


def _requantized(sums: np.ndarray, step: np.float32) -> np.ndarray:
    return np.clip(np.round(sums / step), -128, 127) * step


def _convolution(onnx: Any, weight: np.ndarray, step: np.float32) -> bytes:
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    results = len(weight)
    constants = [
        array(np.float32(1), "one"),
        array(np.uint8(0), "zero"),
        array(weight, "w8"),
        array(np.ones(results, np.float32), "ws"),
        array(np.zeros(results, np.int8), "wz"),
        array(step, "step"),
        array(np.uint8(128), "middle"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["w"], axis=0),
        helper.make_node("Conv", ["d", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "step", "middle"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "step", "middle"], ["o"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("x", onnx.TensorProto.FLOAT, [1, weight.shape[1], 8, 8])]
    graph = helper.make_graph(nodes, "g", inputs, [value("o", onnx.TensorProto.FLOAT, None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _run(onnxruntime: Any, model: bytes, image: np.ndarray, entries: dict[str, str]) -> np.ndarray:
    settings = onnxruntime.SessionOptions()
    for key, entry in entries.items():
        settings.add_session_config_entry(key, entry)
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": image})[0])


@pytest.fixture(scope="module")
def graph() -> Graph:
    """A convolution on pixels, one that reads large values side by side, one that does not, and an odd group."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 6, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 4, 3, padding=1, groups=2),
    ).eval()
    module[0].weight.data.abs_()
    module[2].weight.data.abs_()  # every channel is as bright as the others: they saturate together
    module[4].weight.data[:, ::2] = 0  # no two neighbours
    return trace(module.requires_grad_(False), ModelInfo(Task.DETECT, ("a", "b"), (32, 32)))


def images(count: int = 8) -> list[np.ndarray]:
    """Bright ones, as overexposed photographs are."""
    return [
        np.clip(np.random.default_rng(i).random((1, 3, 32, 32)) + 0.6, 0, 1).astype(np.float32) for i in range(count)
    ]


@pytest.fixture(scope="module")
def plan(graph: Graph) -> Plan:
    """Calibrated, the first convolution of half range."""
    derived = derive(graph, SCHEME)
    return solve_plan(graph, derived, observe(graph, [derived], images()))


def test_first_convolution_has_half_range(graph: Graph, plan: Plan) -> None:
    assert [p.spec.half_range for p in plan.weights] == [True, False, False, False]
    assert not any(p.spec.half_range for p in derive(graph, LITERT).weights)


def test_layers_that_clamp_get_safe_weights_and_others_stay(graph: Graph, plan: Plan) -> None:
    seen = measure(graph, [plan], images())[0]
    assert set(seen) == {p.name for p in plan.weights[1:]}
    assert seen["2:weight"].share > 0.01
    assert seen["4:weight"].clamped == 0
    safe = with_safe_weights(graph, [plan], images())[0]
    assert safe.by_name["2:weight"].spec.safe_pairs
    assert safe.by_name["4:weight"] == plan.by_name["4:weight"]
    assert measure(graph, [safe], images())[0].get("2:weight") is None  # nothing left to look at
    point = safe.by_name["2:weight"]
    assert point.params is not None
    weight = graph.module.get_parameter("2.weight").detach().numpy()
    found = np.round(weight / point.params.scale.reshape(-1, 1, 1, 1)).astype(np.int32)
    assert unsafe_channels(torch.from_numpy(found), 0) == 0
    assert any("without VNNI" in note for note in safe.notes)


def test_counts_are_those_of_a_convolution(graph: Graph, plan: Plan) -> None:
    """The share of one layer, computed from scratch: strides, padding and all."""
    image = images(1)[0]
    source, point = plan.by_name["1:relu:0"], plan.by_name["2:weight"]
    assert source.params is not None
    assert point.params is not None
    with torch.inference_mode():
        real = torch.relu(torch.nn.functional.conv2d(
            torch.from_numpy(image), graph.module.get_parameter("0.weight"), graph.module.get_parameter("0.bias"), 2, 1
        )).numpy()[0]  # fmt: skip
    zero = int(source.params.zero_point) + 128
    codes = np.clip(np.round(real / source.params.scale) + zero, 0, 255).astype(np.int64)
    codes = np.pad(codes, ((0, 0), (1, 1), (1, 1)), constant_values=zero)
    weight = graph.module.get_parameter("2.weight").detach().numpy()
    ints = np.clip(np.round(weight / point.params.scale.reshape(-1, 1, 1, 1)), -127, 127).astype(np.int64)
    changed = 0
    for y in range(16):
        for x in range(16):
            patch = codes[:, y : y + 3, x : x + 3].transpose(1, 2, 0).reshape(-1)
            for row in ints.transpose(0, 2, 3, 1).reshape(8, -1):
                changed += int(vpmaddubsw(patch, row).sum() != patch @ row)
    assert changed
    seen = measure(graph, [plan], [image])[0]["2:weight"]
    assert (seen.clamped, seen.results) == (changed, 16 * 16 * 8)


def test_plans_together_are_measured_as_each_alone(graph: Graph, plan: Plan) -> None:
    """What they share is looked at once, and what differs for each."""
    point = plan.by_name["2:weight"]
    assert point.params is not None
    wider = replace(point.params, scale=np.asarray(point.params.scale * 3, np.float32))
    other = plan.with_params({point.name: wider}, "wider")
    together = measure(graph, [plan, other, plan], images(2))
    assert together == [measure(graph, [p], images(2))[0] for p in (plan, other, plan)]
    assert together[0]["2:weight"] != together[1]["2:weight"]
    assert together[0]["4:weight"] == together[1]["4:weight"]


def test_what_safe_weights_cost_does_not_hang_on_the_range_of_the_input(graph: Graph, plan: Plan) -> None:
    ranges = {p.name: p.params for p in plan.activations if p.params is not None and not p.fixed}
    finer = {n: replace(q, scale=np.asarray(q.scale * 0.7, np.float32)) for n, q in ranges.items()}
    other = plan.with_params(finer, "finer")
    together, alone = (
        measure(graph, [plan, other], images(2)),
        [measure(graph, [p], images(2))[0] for p in (plan, other)],
    )
    assert together == alone
    one, two = (found["2:weight"] for found in together)
    assert one.rounding == two.rounding > 0 and one.error != two.error


def test_a_plan_survives_json_and_adaptation(graph: Graph) -> None:
    derived = derive(graph, PORTABLE)
    solved = with_safe_weights(graph, [solve_plan(graph, derived, observe(graph, [derived], images()))], images())[0]
    assert Plan.from_json(solved.to_json()) == solved
    adapted = adapt(graph, solved, SCHEME)
    assert [(p.spec, p.params) for p in adapted.weights] == [(p.spec, p.params) for p in solved.weights]


def test_a_plan_of_an_exact_runtime_gets_a_safe_first_convolution(graph: Graph) -> None:
    derived = derive(graph, LITERT)
    solved = solve_plan(graph, derived, observe(graph, [derived], images()))
    adapted = adapt(graph, solved, SCHEME)
    first = adapted.weights[0]
    assert first.params is not None
    assert first.spec.half_range
    assert first.spec.qmax == 64
    amax = np.abs(graph.module.get_parameter("0.weight").detach().numpy()).reshape(8, -1).max(1)
    assert (first.params.scale * 64 > 0.5 * amax).all()
    assert [p.params for p in adapted.weights[1:]] == [p.params for p in solved.weights[1:]]
