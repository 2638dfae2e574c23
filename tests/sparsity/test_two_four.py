"""2:4 masks keep the best two of four, reordering changes no output, and exports are 2:4 in their integers."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from core_models import checkpoint, family_model, tiny_host, write_images
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from yoloquant import api
from yoloquant.bridge.checkpoint import load_model
from yoloquant.errors import ModelError, PruneError, UsageError
from yoloquant.graph.traced_model import TracedModel
from yoloquant.pruning import permute_channels as nm_permute
from yoloquant.pruning.permute_channels import permute_channels
from yoloquant.quantization.artifact import Artifact
from yoloquant.sparsity.permutation_search import Search, best_order, retained
from yoloquant.sparsity.two_four import check_24, mask_24, masks_24
from yoloquant.sparsity.unstructured import apply_masks
from yoloquant.targets.tensorrt.sparse_check import check_onnx_24
from yoloquant.targets.tensorrt.target import TensorRTTarget

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 5).map(lambda n: 4 * n), st.sampled_from([(), (1, 1), (3, 3)]))


def live(family: str = "", task: str = "detect") -> Any:
    return copy.deepcopy((family_model(family, task) if family else tiny_host()).module)


@given(SHAPES, st.integers(0, 10_000))
def test_the_best_two_of_every_four_input_channels_stay(shape: Any, seed: int) -> None:
    k, c, kernel = shape
    weight = torch.randn(k, c, *kernel, generator=torch.Generator().manual_seed(seed))
    mask = mask_24(weight)
    assert mask.shape == weight.shape
    values, kept = weight.abs().reshape(k, c, -1), mask.reshape(k, c, -1)
    for out, start, place in itertools.product(range(k), range(0, c, 4), range(values.shape[2])):
        four, stays = values[out, start : start + 4, place], kept[out, start : start + 4, place]
        assert int(stays.sum()) == 2 and four[stays].min() >= four[~stays].max()
    assert check_24(weight * mask).ok and check_24(weight * mask).zeros == 0.5


def test_a_check_counts_what_is_wrong() -> None:
    weight = np.zeros((2, 8, 1, 1), np.int8)
    weight[0, :3] = 1  # three of the first four
    weight[1, 2:6] = 1  # four in a row, two in each group
    found = check_24(weight)
    assert (found.groups, found.broken, found.ok) == (4, 1, False)
    assert found.zeros == pytest.approx(9 / 16)
    for wrong in (np.zeros((2, 6)), np.zeros(8)):
        with pytest.raises(PruneError, match="groups of four"):
            check_24(wrong)
    with pytest.raises(PruneError, match="groups of four"):
        mask_24(torch.zeros(2, 6, 3, 3))


@pytest.mark.parametrize("family", ["", "yolo11"])
def test_every_layer_is_masked_or_named_with_a_reason(family: str) -> None:
    module = live(family)
    found = masks_24(module)
    skipped = {s.name: s.reason for s in found.skipped}
    for path, layer in module.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert (f"{path}.weight" in found.masks) is not (f"{path}.weight" in skipped)
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            assert skipped[f"{path}.weight"].startswith("depthwise")
    before = sum(float(module.get_parameter(n).detach().abs().sum()) for n in found.masks)
    apply_masks(module, found.masks)
    assert all(check_24(module.get_parameter(n)).ok for n in found.masks)
    after = sum(float(module.get_parameter(n).detach().abs().sum()) for n in found.masks)
    assert found.retained == pytest.approx(after / before)


def test_layers_without_whole_groups_are_named() -> None:
    module = live()
    conv = module.model[1].conv
    module.model[1].conv = nn.Conv2d(6, conv.out_channels, 3)
    skipped = {s.name: s.reason for s in masks_24(module).skipped}
    assert skipped["model.1.conv.weight"] == "6 input channels are not a multiple of 4"
    with pytest.raises(PruneError, match="no layer can be 2:4: model"):
        masks_24(module, tuple({n.split(".conv")[0].split(".cv")[0] + "*" for n in masks_24(module).masks}))


def test_without_reordering_only_the_masks_are_applied() -> None:
    module, before = live(), live()
    found = masks_24(module)
    apply_masks(module, found.masks)
    for name, value in module.state_dict().items():
        old = before.state_dict()[name]
        assert torch.equal(value, old * found.masks[name] if name in found.masks else old)


# -- the order of channels


def best_of_all(matrix: torch.Tensor) -> float:
    rest = [[i for i in range(8) if i not in c] for c in itertools.combinations(range(8), 4)]
    orders = [[*c, *r] for c, r in zip(itertools.combinations(range(8), 4), rest, strict=True)]
    return max(retained(matrix[:, o]) for o in orders)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_of_eight_channels_the_best_order_is_found(seed: int) -> None:
    matrix = torch.randn(6, 8, generator=torch.Generator().manual_seed(seed))
    order = best_order(matrix, Search(escapes=30))
    assert sorted(order.tolist()) == list(range(8))
    assert retained(matrix[:, order]) == pytest.approx(best_of_all(matrix), rel=1e-5)


def test_large_channels_are_spread_so_that_nothing_large_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(40, 64, generator=generator) * 0.1
    matrix[:, :32] += 1  # eight groups of large ones, eight of small ones
    order = best_order(matrix)
    assert retained(matrix) < 0.6 * float(matrix[:, :32].sum())
    assert retained(matrix[:, order]) == pytest.approx(float(matrix[:, :32].sum()), rel=1e-4)
    assert torch.equal(order, best_order(matrix))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.integers(1, 6), st.integers(0, 3), st.integers(1, 9), st.integers(0, 1000))
def test_an_order_is_never_worse_than_none(rows: int, groups: int, escapes: int, looked: int, seed: int) -> None:
    matrix = torch.randn(rows, 4 * groups, generator=torch.Generator().manual_seed(seed))
    order = best_order(matrix, Search(swaps=5, escapes=escapes, rows=looked))
    assert sorted(order.tolist()) == list(range(4 * groups))
    assert retained(matrix[:, order]) >= retained(matrix) * (1 - 1e-9)


def test_bounds_must_make_sense() -> None:
    with pytest.raises(UsageError, match="rows=0"):
        Search(rows=0)
    with pytest.raises(UsageError, match="swaps=-1"):
        Search(swaps=-1)


def raw_outputs(module: Any) -> list[torch.Tensor]:
    module.model[-1].training = True
    found = module(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)).double())
    return list(nm_permute._tensors(found))


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("", "detect"),
        pytest.param("yolo11", "detect", marks=pytest.mark.slow),
        pytest.param("yolo26", "detect", marks=pytest.mark.slow),
        pytest.param("yolov8", "segment", marks=pytest.mark.slow),
    ],
)
def test_reordering_keeps_outputs_and_saves_magnitude(family: str, task: str) -> None:
    module = live(family, task)
    plain = masks_24(module)
    with torch.no_grad():
        reference = raw_outputs(copy.deepcopy(module).double())
        found = permute_channels(module, search=Search(escapes=2))
        outputs = raw_outputs(copy.deepcopy(module).double())
    for a, b in zip(reference, outputs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * float(a.abs().max()))
    assert all(r.after >= r.before for r in found)
    moved = [r for r in found if r.after > r.before]
    assert len(moved) > len(found) // 2 and {n for r in moved for n in r.readers} <= set(plain.masks)
    assert masks_24(module).retained > plain.retained
    original = live(family, task)
    assert any(not torch.equal(module.get_parameter(n), original.get_parameter(n)) for n in plain.masks)


def test_a_channel_of_a_bottleneck_moves_with_all_that_makes_it() -> None:
    """cv1's filters and BatchNorm, and the input channels of cv2, in one order."""
    module = live()
    before = live()
    found = {r.name: r for r in permute_channels(module)}
    name = next(n for n in found if n.endswith("m.0.cv1") and found[n].after > found[n].before)
    maker, old = module.get_submodule(name), before.get_submodule(name)
    reader, was = (m.get_submodule(name[:-1] + "2").conv.weight for m in (module, before))
    order = [int((old.bn.running_var == v).nonzero()) for v in maker.bn.running_var]
    assert sorted(order) == list(range(len(order))) != order
    for key in ("weight", "bias", "running_mean"):
        assert torch.equal(getattr(maker.bn, key), getattr(old.bn, key)[order])
    # what the maker reads, and what the reader makes, may have an order of their own
    assert torch.equal(maker.conv.weight.sort(dim=1).values, old.conv.weight[order].sort(dim=1).values)
    assert torch.equal(reader.sort(dim=0).values, was[:, order].sort(dim=0).values)


def test_an_order_that_changes_outputs_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = live()
    before = copy.deepcopy(module.state_dict())
    real = nm_permute._apply

    def forget_batchnorm(module: Any, labels: Any, order: Any, axes: Any) -> None:
        real(module, labels, order, {n: a for n, a in axes.items() if ".bn." not in n})

    monkeypatch.setattr(nm_permute, "_apply", forget_batchnorm)
    with pytest.raises(PruneError, match="permutation=none"):
        permute_channels(module)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


# -- exports


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A 2:4 model, quantized and exported for TensorRT, and the layers that were planned."""
    folder = tmp_path_factory.mktemp("exported")
    module = live()
    plain = masks_24(module)
    assert permute_channels(module)
    found = masks_24(module)
    assert found.retained > plain.retained
    masks = found.masks
    apply_masks(module, masks)
    artifact = api.quantize(
        checkpoint(folder / "sparse.pt", module), data=str(write_images(folder / "data")), scheme="tensorrt"
    )
    return TensorRTTarget(compile_check=False).export(artifact, folder, "sparse").path, list(masks)


def test_an_export_is_2_4_after_quantization(exported: tuple[Path, list[str]]) -> None:
    path, planned = exported
    found = check_onnx_24(path, planned)
    assert found.ok and set(found.layers) == set(planned) == set(found.quantized)
    assert all(check.groups and check.zeros >= 0.5 for check in found.layers.values())


def test_one_weight_too_many_in_a_file_is_seen(exported: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, planned = exported
    model = onnx.load(path)
    name = planned[3]
    node = next(n for n in model.graph.node if n.name == name.removesuffix(".weight"))
    made = {o: n for n in model.graph.node for o in n.output}
    source = made[made[node.input[1]].input[0]].input[0]
    constant = next(i for i in model.graph.initializer if i.name == source)
    value = numpy_helper.to_array(constant).copy()
    value[0, :4, 0, 0] = np.abs(value[0]).max()
    constant.CopyFrom(numpy_helper.from_array(value, source))
    onnx.save(model, tmp_path / "broken.onnx")
    found = check_onnx_24(tmp_path / "broken.onnx", planned)
    assert found.broken == (name,) and not found.ok and found.layers[name].broken == 1


def test_a_dense_export_is_not_2_4(exported: tuple[Path, list[str]], tmp_path: Path) -> None:
    _, planned = exported
    host = load_model(live())
    dense = TensorRTTarget().export_float(Artifact(TracedModel.of(host, (64, 64)), {}), tmp_path, "dense")
    found = check_onnx_24(dense.path, planned)
    assert set(found.broken) == set(planned) and found.quantized == ()


@pytest.mark.slow
@pytest.mark.parametrize("end2end", [True, False])
def test_an_export_holds_one_branch_of_an_end_to_end_head(end2end: bool, tmp_path: Path) -> None:
    module = copy.deepcopy(family_model("yolo26", "detect", end2end).module)
    masks = masks_24(module).masks
    apply_masks(module, masks)
    host = load_model(module)
    artifact = Artifact(TracedModel.of(host, (64, 64)), {})
    found = check_onnx_24(TensorRTTarget().export_float(artifact, tmp_path, "e2e").path, masks)
    head = f"model.{len(module.model) - 1}."
    branches = {n for n in masks if n.startswith(f"{head}one2one_cv")}, {n for n in masks if n.startswith(f"{head}cv")}
    assert found.ok and set(found.absent) == branches[end2end] and branches[not end2end] <= set(found.layers)


def small_file(path: Path, *, integers: bool = False, gemm: bool = False, zero: int = 0) -> Path:
    """One layer named ``a`` whose weight is 2:4 only once its smallest value is rounded away."""
    weight = np.array([[1.0, 0.001, 0.5, 0.0]], np.float32)
    scale, point = np.float32(1 / 127), np.int8(zero)
    constants = {"s": np.asarray(scale), "z": np.asarray(point)}
    if integers:
        constants["w"] = (np.rint(weight / scale) + zero).astype(np.int8)
        nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"])]
    else:
        constants["w"] = weight
        nodes = [
            helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        ]
    if gemm:
        nodes.append(helper.make_node("Gemm", ["x", "d"], ["y"], "a", transB=1))
    else:
        nodes += [
            helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["y"], "a"),
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("zero", [0, 3])
def test_weights_are_taken_as_the_integers_that_count(tmp_path: Path, gemm: bool, integers: bool, zero: int) -> None:
    path = small_file(tmp_path / "small.onnx", integers=integers, gemm=gemm, zero=zero)
    found = check_onnx_24(path, ["a.weight"])
    assert found.ok and found.layers["a.weight"].zeros == 0.5
    assert found.quantized == ("a.weight",)


def test_branches_that_an_export_drops_are_named(tmp_path: Path) -> None:
    found = check_onnx_24(small_file(tmp_path / "small.onnx"), ["a.weight", "one2one_a.weight"])
    assert set(found.layers) == {"a.weight"} and found.absent == ("one2one_a.weight",)


def test_files_that_cannot_be_checked_are_refused(tmp_path: Path) -> None:
    path = small_file(tmp_path / "small.onnx")
    with pytest.raises(PruneError, match="no layer 'b' that was planned"):
        check_onnx_24(path, ["b.weight"])
    with pytest.raises(ModelError, match="no ONNX file"):
        check_onnx_24(tmp_path / "none.onnx", ["a.weight"])
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ModelError, match="no readable ONNX"):
        check_onnx_24(tmp_path / "bad.onnx", ["a.weight"])
