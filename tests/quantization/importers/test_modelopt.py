"""Checkpoints of Ultralytics' native QAT: their ranges arrive in plans and exports bit for bit."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_models import checkpoint, family_graph, family_model, sample_images, tiny_graph, tiny_host, write_images
from native_models import IMAGES, native_checkpoint, native_state
from tiny_models import RECENT, by_age
from torch import fx

from yoloquant import QuantizeOptions, api, targets
from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import HostModel
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.errors import ModelError
from yoloquant.graph.trace import Graph, OpKind
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.calibrate import observe, solve_plan, weight_of
from yoloquant.quantization.importers import modelopt as native
from yoloquant.quantization.importers.modelopt_reach import Reach
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.scheme import PORTABLE, SYMMETRIC, Placement, Scheme, body_weighted, derive, operands

FAMILIES = ("two-level", "yolo11", "yolov9t", "yolov10n", "yolo26", "yolo11 segment", "yolo11 classify")
SCHEMES = tuple({s.name: s for s in (PORTABLE, *(targets.get(n).scheme for n in targets.names()))}.values())
NATIVE_PLACEMENT = Scheme(
    name="conv-inputs",
    place=lambda graph: Placement(
        operands(graph, lambda g, reader, _: "read" if reader.kind is OpKind.CONV else "").sites,
        (),
        body_weighted(graph),
    ),
    activation=SYMMETRIC,
)
OPTIONS = QuantizeOptions(calibration=CalibrationOptions(images=8))


def batches() -> list[np.ndarray]:
    return sample_images(IMAGES, seed=5)


@lru_cache(maxsize=len(FAMILIES))
def trained(family: str) -> tuple[HostModel, Graph]:
    """A model with the state of native QAT, and its graph; treat both as read-only."""
    plain = tiny_host() if family == "two-level" else family_model(*family.split())
    model = replace(plain, native=native_state(plain.module, batches()))
    return model, tiny_graph() if family == "two-level" else family_graph(*family.split())


def taken(family: str, scheme: Scheme) -> tuple[Plan, dict[str, Any], Reach]:
    model, graph = trained(family)
    (plan,), provenance = native.take_over(graph, model, [derive(graph, scheme)])
    return plan, provenance["plans"][scheme.name], Reach(graph, native.read(model.native).inputs)


@lru_cache(maxsize=len(FAMILIES))
def largest(family: str) -> dict[str, float]:
    """Largest magnitude of every operation's result on the images that the ranges come from."""
    _, graph = trained(family)
    names = {graph.fx_name(name): name for name in graph.ops}
    found: dict[str, float] = {}

    class Record(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if n.name in names and isinstance(result, torch.Tensor):
                found[names[n.name]] = max(found.get(names[n.name], 0.0), float(result.abs().max()))
            return result

    with torch.no_grad():
        for image in batches():
            Record(graph.module).run(torch.from_numpy(image))
    return found


@pytest.mark.parametrize("family", by_age(FAMILIES, recent=["two-level", *RECENT]))
def test_every_range_is_found_at_the_tensor_it_was_measured_on(family: str) -> None:
    model, graph = trained(family)
    ranges = native.read(model.native)
    readers = Reach(graph, ranges.inputs).readers
    for name, layer in readers.items():
        measured = largest(family)[graph.ops[name].inputs[0]]
        if graph.ops[name].kind is OpKind.POOL_MAX:  # one pooling layer runs several times
            assert measured <= ranges.inputs[layer] * 1.001, name
        else:
            assert measured == pytest.approx(ranges.inputs[layer], rel=1e-3), name
    missing = {op.weight.removesuffix(".weight") for op in graph.body() if op.weight and op.name not in readers}
    assert missing and {f"{layer}.input_quantizer" for layer in missing} <= set(ranges.disabled)
    assert len(readers) > 20


@pytest.mark.parametrize("scheme", [*SCHEMES, NATIVE_PLACEMENT], ids=lambda s: s.name)
@pytest.mark.parametrize("family", by_age(FAMILIES, recent=["two-level", *RECENT]))
def test_a_native_range_clips_nothing_that_training_did_not_clip(family: str, scheme: Scheme) -> None:
    plan, _, _ = taken(family, scheme)
    found = [p for p in plan.activations if p.algorithm == native.ALGORITHM]
    assert len(found) > len(plan.activations) / 4
    for point in found:
        assert point.params is not None and point.params.zero_point == 0
        for site in point.sites:
            assert largest(family)[site.tensor] <= float(point.params.scale) * 127 * 1.001, point.name


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_a_point_has_the_largest_range_of_its_group(scheme: Scheme) -> None:
    plan, summary, reach = taken("two-level", scheme)
    graph = trained("two-level")[1]
    seen: set[str] = set()
    for members in plan.groups().values():
        points = [p for p in members if not p.fixed]
        roots = {p.name for p in points}
        roots |= {n for n, op in graph.ops.items() if op.kind is OpKind.CONCAT and graph.root(op.inputs[0]) in roots}
        layers = {layer for name, layer in reach.readers.items() if graph.root(graph.ops[name].inputs[0]) in roots}
        if not points or points[0].algorithm != native.ALGORITHM:
            assert not layers, "all of these layers are read as a whole"
            continue
        amax = max(reach.inputs[layer] for layer in layers)
        assert all(p.params is not None and p.params.scale == np.float32(amax / np.float32(127)) for p in points)
        seen |= layers
    assert seen == set(reach.readers.values())
    assert summary["inputs_exact"] + len(summary["inputs_widened"]) == len(seen) and not summary["inputs_unused"]
    assert summary["inputs_widened"] and all(f > 1 for f in summary["inputs_widened"].values())


@pytest.mark.parametrize("family", by_age(FAMILIES, recent=["two-level", *RECENT]))
def test_without_ties_every_layer_keeps_its_own_range(family: str) -> None:
    plan, summary, reach = taken(family, NATIVE_PLACEMENT)
    graph = trained(family)[1]
    roots: dict[str, set[str]] = {}
    for name, layer in reach.readers.items():
        if graph.ops[name].kind is OpKind.CONV:
            roots.setdefault(graph.root(graph.ops[name].inputs[0]), set()).add(layer)
    for root, layers in roots.items():
        point = plan.by_name[root]
        if point.params is not None:
            amax = max(reach.inputs[layer] for layer in layers)
            assert point.params.scale == np.float32(amax / np.float32(127)), root
    assert len(summary["inputs_unused"]) <= 4, "poolings, which this placement does not quantize"


def test_only_a_part_of_a_tensor_was_trained() -> None:
    """Attention's positional convolution reads the values alone; queries and keys may be larger."""
    whole, summary, _ = taken("yolo11", PORTABLE)
    (pe,) = summary["inputs_unused"]
    assert pe.endswith("attn.pe.conv")
    qkv = next(p for p in whole.activations if ".qkv." in p.name)
    assert qkv.params is None and any(pe in note for note in whole.notes)
    alone, summary, reach = taken("yolo11", targets.get("tensorrt").scheme)
    assert not summary["inputs_unused"]
    assert alone.by_name[qkv.name].params.scale == np.float32(reach.inputs[pe] / np.float32(127))  # type: ignore[union-attr]


@pytest.mark.parametrize("family", by_age(FAMILIES, recent=["two-level", *RECENT]))
def test_weights_keep_the_integers_of_the_training(family: str) -> None:
    model, graph = trained(family)
    ranges = native.read(model.native)
    plan, summary, _ = taken(family, PORTABLE)
    points = [p for p in plan.weights if p.algorithm == native.ALGORITHM]
    assert len(points) == summary["weights"] > 0.7 * len(plan.weights)
    for point in points:
        layer = point.name.removesuffix(":weight")
        block: Any = model.module.get_submodule(layer.rpartition(".")[0])
        weight = model.module.get_parameter(f"{layer}.weight").detach()
        amax = torch.from_numpy(ranges.weights[layer])
        factor = block.bn.weight / torch.sqrt(block.bn.running_var + block.bn.eps)  # as Ultralytics folds the range
        expected = amax * factor.abs().detach() / point.spec.qmax  # 64 in the first convolution, which has half range
        assert point.params is not None and np.array_equal(point.params.scale, expected.numpy()), point.name
        shape = (-1, *[1] * (weight.dim() - 1))
        before = weight / (amax / point.spec.qmax).reshape(shape) * factor.sign().detach().reshape(shape)
        after = weight_of(graph, point) / point.params.scale.reshape(shape)
        assert np.abs(before.numpy() - after).max() < 1e-3


def test_branches_that_fusing_merges_have_no_weight_range_but_one_for_their_input() -> None:
    plan, _, reach = taken("yolov9t", PORTABLE)
    model, graph = trained("yolov9t")
    merged = [n.removesuffix(".conv1.conv") for n in native.read(model.native).inputs if n.endswith(".conv1.conv")]
    assert merged
    for block in merged:
        assert plan.by_name[f"{block}.conv:weight"].params is None
        (op,) = [op for op in graph.ops.values() if op.weight == f"{block}.conv.weight"]
        assert reach.readers[op.name] in {f"{block}.conv1.conv", f"{block}.conv2.conv"}


def test_what_training_lacked_is_calibrated_and_what_it_had_is_kept() -> None:
    model, graph = trained("two-level")
    schemes = [derive(graph, s) for s in SCHEMES]
    plans, provenance = native.take_over(graph, model, schemes)
    seen = observe(graph, plans, sample_images(8, seed=9))
    for plan in plans:
        solved = solve_plan(graph, plan, seen)
        solved.require_calibrated()
        for before, after in zip(plan.points, solved.points, strict=True):
            assert before.params is None or before == after
            assert before.params is not None or after.algorithm not in {native.ALGORITHM, "tied", ""}
        counts = provenance["plans"][plan.scheme]
        assert counts["points_calibrated"] == sum(p.params is None for p in plan.points)
        assert f"{counts['points_calibrated']} that it lacks were calibrated" in plan.notes[-2]
        heads = [f"{op.weight.removesuffix('.weight')}:weight" for op in graph.heads]
        assert all(plan.by_name[name].params is None for name in heads), "switched off in the training"
    assert json.loads(json.dumps(provenance)) == provenance


def test_other_widths_are_not_filled_with_8_bit_ranges() -> None:
    narrow = replace(PORTABLE, name="w4a8", weight=replace(PORTABLE.weight, bits=4))
    plan, summary, _ = taken("two-level", narrow)
    assert summary["weights"] == 0 and any(p.algorithm == native.ALGORITHM for p in plan.activations)
    narrow = replace(narrow, name="w4a4", activation=replace(SYMMETRIC, bits=4))
    assert taken("two-level", narrow)[1]["points_native"] == 0


def test_a_plain_checkpoint_is_left_alone() -> None:
    graph = trained("two-level")[1]
    plans = (derive(graph, PORTABLE),)
    assert native.take_over(graph, tiny_host(), plans) == (plans, {})


def _settings(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return state["modelopt"]["modelopt_state_dict"][-1][1]["metadata"]["quantizer_state"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "change",
    [{"_num_bits": 4}, {"_num_bits": (4, 3)}, {"_unsigned": True}, {"_block_sizes": {-1: 16}}, {"_axis": 1}],
    ids=str,
)
def test_another_grid_is_listed_and_calibrated(change: dict[str, Any]) -> None:
    model = tiny_host()
    state = native_state(model.module, batches())
    layers = ("model.1.conv.input_quantizer", "model.1.conv.weight_quantizer")
    for name in layers:
        _settings(state)[name].update(change)
    ranges = native.read(state)
    assert ranges.unsupported == layers
    assert "model.1.conv" not in ranges.inputs and "model.1.conv" not in ranges.weights
    graph = trained("two-level")[1]
    (plan,), provenance = native.take_over(graph, replace(model, native=state), [derive(graph, PORTABLE)])
    assert plan.by_name["model.1.conv:weight"].params is None and provenance["unsupported"] == list(layers)


def test_a_layer_that_never_saw_anything_is_calibrated() -> None:
    state = native_state(tiny_host().module, batches())
    state["ranges"]["model.1.conv.input_quantizer._amax"].zero_()
    state["ranges"]["model.3.conv.input_quantizer._pre_quant_scale"] = torch.ones(16)
    ranges = native.read(state)
    assert "model.1.conv" not in ranges.inputs and "model.1.conv" in ranges.weights
    assert ranges.unsupported == ("model.3.conv.input_quantizer",)


DAMAGE = {
    "no conversion": lambda s: s.pop("modelopt"),
    "no ranges": lambda s: s.pop("ranges"),
    "no steps": lambda s: s["modelopt"].update(modelopt_state_dict=[]),
    "other steps": lambda s: s["modelopt"].update(modelopt_state_dict=["quantize"]),
    "text for a range": lambda s: s["ranges"].update({"model.0.conv.input_quantizer._amax": "1.0"}),
    "no width": lambda s: _settings(s)["model.0.conv.input_quantizer"].pop("_num_bits"),
    "NaN": lambda s: s["ranges"]["model.0.conv.input_quantizer._amax"].fill_(float("nan")),
    "infinite": lambda s: s["ranges"]["model.0.conv.weight_quantizer._amax"].fill_(float("inf")),
    "negative": lambda s: s["ranges"]["model.0.conv.weight_quantizer._amax"].mul_(-1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_gets_a_clear_error(damage: str) -> None:
    state = copy.deepcopy(native_state(tiny_host().module, batches()))
    DAMAGE[damage](state)
    with pytest.raises(
        ModelError, match=r"native QAT.*'best\.pt'|'best\.pt' has a NaN, infinite or negative native QAT"
    ):
        native.read(state, "best.pt")


def test_reading_needs_neither_modelopt_nor_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)  # importing it raises
    module = tiny_host().module
    host = load_model(native_checkpoint(tmp_path / "best.pt", module, batches()))
    assert not host.unsafe and not host.state
    ranges = native.read(host.native, host.source)
    assert ranges.version == "0.47.0" and not ranges.unsupported
    layers = {n for n, m in module.named_modules() if isinstance(m, torch.nn.Conv2d)}
    off = {n for n in layers if n.startswith("model.10.") and not n.endswith(".conv")} | {"model.10.dfl.conv"}
    assert set(ranges.weights) == layers - off and set(ranges.inputs) == layers - off | {"model.6.m"}
    assert set(ranges.disabled) == {f"{n}.{kind}_quantizer" for n in off for kind in ("input", "weight")}


def test_foreign_classes_and_foreign_states_are_refused(tmp_path: Path) -> None:
    module = tiny_host().module
    state = native_state(module, batches())
    state["modelopt"]["modelopt_version"] = Fraction(47, 100)
    with pytest.raises(ModelError, match=r"cannot be read safely.*allow_unsafe=true"):
        load_model(native_checkpoint(tmp_path / "class.pt", module, batches(), modelopt=state))
    with pytest.raises(ModelError, match=r"under 'modelopt' is not the state of native QAT"):
        load_model(checkpoint(tmp_path / "list.pt", modelopt=["quantize"]))


def test_the_ranges_can_be_left_out(tmp_path: Path) -> None:
    path = native_checkpoint(tmp_path / "best.pt", tiny_host().module, batches())
    data = write_images(tmp_path / "data")
    with_them = api.quantize(path, data=data, scheme="portable", options=OPTIONS)
    without = api.quantize(path, data=data, scheme="portable", options=replace(OPTIONS, native_ranges=False))
    plain = api.quantize(checkpoint(tmp_path / "plain.pt"), data=data, scheme="portable", options=OPTIONS)
    assert without.plans == plain.plans != with_them.plans
    assert "native_qat" in with_them.provenance and "native_qat" not in without.provenance


@pytest.mark.slow
def test_from_checkpoint_to_exports(tmp_path: Path) -> None:
    path = native_checkpoint(tmp_path / "native_best.pt", tiny_host().module, batches())
    data = write_images(tmp_path / "data")
    artifact = api.quantize(path, data=data, options=OPTIONS)
    assert artifact.provenance["native_qat"]["modelopt"] == "0.47.0"
    saved = Artifact.load(artifact.save(tmp_path / "native_best_int8.pt"))
    assert (
        dict(saved.plans) == dict(artifact.plans)
        and saved.provenance["native_qat"] == artifact.provenance["native_qat"]
    )
    planned = api.plan(path, scheme="onnxruntime")
    result = api.export(saved, targets="onnxruntime,openvino,litert", output=tmp_path / "exports")
    for export in result.exports:
        target = targets.get(export.target)
        scales = target.read_scales(export)
        plan = saved.plan_for(target.scheme)
        points = [p for p in plan.points if p.algorithm == native.ALGORITHM]
        assert len(points) > len(plan.points) / 3
        for point in points:
            scale, zero = scales[point.name]
            assert point.params is not None and np.array_equal(np.squeeze(scale), np.squeeze(point.params.scale))
            assert not np.any(zero), point.name
            if export.target == "onnxruntime" and not point.spec.safe_pairs:  # widened after the images were seen
                assert planned.by_name[point.name].params == point.params
        assert any("native QAT" in note for note in export.notes)


@pytest.mark.slow
def test_the_real_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ultralytics and ModelOpt write and export themselves; the stand-in is held against it too."""
    pytest.importorskip("modelopt.torch.quantization", reason="nvidia-modelopt is not installed")
    pytest.importorskip("huggingface_hub", reason="nvidia-modelopt needs it")
    import onnx
    from onnx import numpy_helper
    from ultralytics import YOLO
    from ultralytics.utils.torch_utils import prepare_qat, qat_state, strip_qat

    plain = tiny_host()
    live: Any = prepare_qat(copy.deepcopy(plain.module), [torch.from_numpy(b) for b in batches()], lambda b: b)
    state = qat_state(live)
    assert state is not None
    imitation = native_state(plain.module, batches())
    assert state["ranges"].keys() == imitation["ranges"].keys()
    assert all(torch.equal(v.cpu(), imitation["ranges"][k]) for k, v in state["ranges"].items())
    real, ours = _settings(state), _settings(imitation)
    assert real.keys() == ours.keys()
    for name in real:
        assert {k: real[name][k] for k in ("_disabled", "_num_bits", "_axis")} == {
            k: ours[name][k] for k in ("_disabled", "_num_bits", "_axis")
        }, name

    monkeypatch.chdir(tmp_path)
    from_live = load_model(live)
    assert native.read(from_live.native).inputs == native.read(state).inputs
    assert from_live.sha256 == plain.sha256
    strip_qat(live)
    path = checkpoint(tmp_path / "best.pt", live, modelopt=state)
    host = load_model(path)
    assert not host.unsafe and native.read(host.native).inputs == native.read(state).inputs

    graph = onnx.load(YOLO(path).export(format="onnx", imgsz=64, simplify=False, opset=17)).graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    constants |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    makers = {out: n for n in graph.node for out in n.output}
    artifact = api.quantize(path, data=write_images(tmp_path / "data"), options=OPTIONS)
    reach = Reach(artifact.graph, native.read(host.native).inputs)
    plan = artifact.plans["tensorrt"]
    checked = 0
    for node in graph.node:
        pair = [makers.get(i) for i in node.input[:2]]
        if node.op_type != "Conv" or any(p is None or p.op_type != "DequantizeLinear" for p in pair):
            continue
        activation, weight = (constants[p.input[1]] for p in pair)  # type: ignore[union-attr]
        name = pair[1].input[0]  # type: ignore[union-attr]
        while name in makers:
            name = makers[name].input[0]
        layer = name.removesuffix(".weight")
        point = plan.by_name[f"{layer}:weight"]
        assert point.params is not None and np.array_equal(point.params.scale, weight.reshape(-1)), layer
        assert reach.inputs[layer] / np.float32(127) == activation, layer
        checked += 1
    assert checked == len(native.read(host.native).weights) > 20
