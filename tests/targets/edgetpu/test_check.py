"""Where the Edge TPU's partition ends, what is in it, and what the report says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

from edgetpu_graphs import Op, T, build

from yoloquant.errors import ArtifactError
from yoloquant.targets.edgetpu.check import BEHIND, check
from yoloquant.targets.edgetpu.companions import KEY
from yoloquant.targets.edgetpu.cost import macs, memory
from yoloquant.targets.edgetpu.edgetpu_options import EdgeTPUOptions
from yoloquant.targets.edgetpu.report import EdgeTPUReport, Memory, Place, Status
from yoloquant.targets.litert.flatbuffer import Flatbuffer

if TYPE_CHECKING:
    from conftest import Tiny

    from yoloquant.types import ExportedModel

MAP = T((1, 8, 8, 4))
CONV = {"weight": T((4, 3, 3, 4), values=1), "bias": T((4,), "INT32", values=0)}


def conv(source: str, result: str) -> Op:
    return Op("CONV_2D", [source, "weight", "bias"], [result], 3)


def places(report: EdgeTPUReport) -> list[str]:
    return [op.place.value for op in report.operators]


def test_everything_maps() -> None:
    report = check(build({"x": MAP, "y": MAP, "z": MAP, **CONV}, [conv("x", "y"), Op("LOGISTIC", ["y"], ["z"])]))
    assert report.complete and report.ends == () and places(report) == ["tpu", "tpu"]
    assert report.share(Place.TPU) == report.supported_share == 1
    assert report.macs == 8 * 8 * 4 * 3 * 3 * 4
    assert report.summary() == ("2 of 2 operators with 100.0% of the multiply-accumulates map to an Edge TPU",)


def test_the_partition_ends_at_the_first_unmapped_operator_and_all_behind_it_stays_on_the_host() -> None:
    tensors = dict.fromkeys("abcde", MAP) | CONV
    ops = [conv("a", "b"), Op("SIN", ["b"], ["c"], 1), conv("c", "d"), Op("LOGISTIC", ["d"], ["e"])]
    report = check(build(tensors, ops))
    assert places(report) == ["tpu", "cpu", "cpu", "cpu"] and report.ends == (1,)
    assert [op.status for op in report.operators][2:] == [Status.MAPPED, Status.MAPPED]
    assert report.operators[2].reason == report.operators[3].reason == BEHIND
    assert report.share(Place.TPU) == 0.5 and report.supported_share == 1 and not report.complete
    assert any("partition ends at operator 1, SIN: not among" in line for line in report.summary())
    assert report.memory.parameters == 4 * 3 * 3 * 4 + 4 * 4


def test_a_branch_that_does_not_need_the_unmapped_operator_stays_on_the_tpu() -> None:
    tensors = dict.fromkeys("abcd", MAP) | {"e": T((1, 8, 8, 8))} | CONV
    ops = [
        Op("SIN", ["a"], ["b"], 1),
        conv("a", "c"),
        Op("LOGISTIC", ["c"], ["d"]),
        Op("CONCATENATION", ["b", "d"], ["e"], options={"axis": 3}),
    ]
    report = check(build(tensors, ops))
    assert places(report) == ["cpu", "tpu", "tpu", "cpu"] and report.ends == (0,)


def test_what_follows_an_undecided_operator_is_unsure_until_the_host_takes_over() -> None:
    tensors = dict.fromkeys("abcde", MAP) | CONV | {"p": T((4,), "INT32", (0, 1, 2, 3), 0.0)}
    ops = [conv("a", "b"), Op("TRANSPOSE", ["b", "p"], ["c"]), conv("c", "d"), Op("SIN", ["d"], ["e"], 1)]
    report = check(build(tensors, ops))
    assert places(report) == ["tpu", "unsure", "unsure", "cpu"] and report.ends == (3,)
    assert report.share(Place.TPU) == report.share(Place.UNSURE) == 0.5
    assert "does not decide about 1 TRANSPOSE" in " ".join(report.summary())


def test_a_file_that_the_compiler_cannot_read_maps_nothing() -> None:
    report = check(build({"x": MAP, "y": MAP, **CONV}, [Op("CONV_2D", ["x", "weight", "bias"], ["y"], 6)]))
    assert "CONV_2D version 6" in report.rejected and not report.complete
    assert report.share(Place.TPU, Place.UNSURE) == report.supported_share == 0
    assert report.summary()[0].startswith("the Edge TPU compiler refuses this file")


def test_reports_survive_json_and_print() -> None:
    tensors = dict.fromkeys("abc", MAP) | CONV
    report = check(build(tensors, [conv("a", "b"), Op("SIN", ["b"], ["c"], 1)]))
    assert EdgeTPUReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    table = report.table(every=True).splitlines()
    assert len(table) == 1 + 2 + 1 + len(report.summary()) and table[1].split()[:4] == ["0", "CONV_2D", "3", "tpu"]
    assert "not among" in report.table()
    large = EdgeTPUReport(report.operators, (), Memory(9 << 20, 0, 0))
    assert any("9.0 MiB of parameters exceed" in line for line in large.summary())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        check(b"nothing")
    with pytest.raises(ArtifactError):
        check(tmp_path / "nowhere.tflite")


def test_multiply_accumulates() -> None:
    """Held against what the shapes say, one operator at a time."""
    row, tall = T((1, 6)), T((5, 6), values=1)
    cases = [
        (Op("CONV_2D", ["x", "weight", "bias"], ["y"], 3), {"x": MAP, "y": T((1, 4, 4, 4)), **CONV}, 4 * 4 * 4 * 36),
        (
            Op("DEPTHWISE_CONV_2D", ["x", "w"], ["y"], 3),
            {"x": MAP, "w": T((1, 3, 3, 4), values=1), "y": MAP},
            8 * 8 * 4 * 9,
        ),
        (Op("FULLY_CONNECTED", ["x", "w"], ["y"], 6), {"x": row, "w": tall, "y": T((1, 5))}, 30),
        (Op("BATCH_MATMUL", ["x", "w"], ["y"]), {"x": T((2, 3, 7)), "w": T((2, 7, 5)), "y": T((2, 3, 5))}, 210),
        (
            Op("TRANSPOSE_CONV", ["s", "w", "x"], ["y"], 2),
            {"s": T((4,), "INT32", 1, 0.0), "w": T((3, 2, 2, 4), values=1), "x": MAP, "y": T((1, 16, 16, 3))},
            8 * 8 * 4 * 12,
        ),
        (Op("ADD", ["x", "x"], ["y"]), {"x": MAP, "y": MAP}, 0),
    ]
    for op, tensors, expected in cases:
        file = Flatbuffer(build(tensors, [op]))
        assert macs(file, file.ops[0]) == expected, op.kind


@pytest.mark.parametrize("computed", ["w", "b"])
def test_products_of_computed_tensors_are_told_from_layers(computed: str) -> None:
    tensors = {"x": T((1, 4)), "w": T((8, 4), values=1), "b": T((8,), "INT32", values=0), "y": T((1, 8))}
    tensors[computed] = T(tensors[computed].shape, tensors[computed].dtype)
    report = check(build(tensors, [Op("FULLY_CONNECTED", ["x", "w", "b"], ["y"], 4)]))
    wanted = "FULLY_CONNECTED of computed tensors" if computed == "w" else "FULLY_CONNECTED"
    assert f"an Edge TPU does not run 1 {wanted}" in report.summary()
    assert EdgeTPUReport.from_dict(report.to_dict()) == report


def test_memory_counts_what_is_alive_at_once() -> None:
    """x lives until the last operator, so it, a and b are alive together: three maps."""
    tensors = dict.fromkeys("xabc", MAP)
    ops = [Op("LOGISTIC", ["x"], ["a"]), Op("LOGISTIC", ["a"], ["b"]), Op("MUL", ["x", "b"], ["c"])]
    found = memory(Flatbuffer(build(tensors, ops)), [0, 1, 2])
    assert found == Memory(parameters=0, activations=3 * 256, largest=256)


@pytest.mark.slow
def test_the_exported_file_meets_the_compiler(exported: dict[str, ExportedModel]) -> None:
    """int8 NHWC input, raw outputs, no leading transpose, no half pixels, lowest versions, only the attention left."""
    model = exported["edgetpu"]
    file = Flatbuffer.read(model.path)
    assert file.tensors[file.inputs[0]].shape == (1, *model.info.imgsz, 3)
    assert {file.tensors[i].dtype for i in (*file.inputs, *file.outputs)} == {"INT8"}
    assert file.ops[0].kind in {"PAD", "CONV_2D"}
    report = EdgeTPUReport.from_dict(model.metadata[KEY]["check"])
    assert report == check(model.path) and not report.rejected
    kinds = {op.kind for op in report.operators if op.status is Status.FALLBACK}
    assert kinds == {"FULLY_CONNECTED"} and len(report.ends) == 1
    assert all(op.version == 2 for op in report.operators if op.kind == "RESIZE_NEAREST_NEIGHBOR")
    assert not any("would do" in op.reason for op in report.operators)
    undecided = {op.kind for op in report.operators if op.status is Status.UNKNOWN}
    assert undecided <= {"MUL", "RESHAPE", "SOFTMAX", "TRANSPOSE"}  # all of the attention
    assert 0 < report.share(Place.TPU) < report.supported_share < 1


@pytest.mark.slow
def test_uint8_input_is_the_same_network(tiny: Tiny, exported: dict[str, ExportedModel], tmp_path: Path) -> None:
    from yoloquant.targets.edgetpu.target import EdgeTPUTarget

    target = EdgeTPUTarget(EdgeTPUOptions(input_type="uint8"))
    unsigned = target.export(tiny.artifact(), tmp_path, "tiny")
    file = Flatbuffer.read(unsigned.path)
    assert file.tensors[file.inputs[0]].dtype == "UINT8" and file.ops[0].kind == "QUANTIZE"
    report = EdgeTPUReport.from_dict(unsigned.metadata[KEY]["check"])
    assert report.operators[0].status is Status.MAPPED
    signed = EdgeTPUTarget().load(exported["edgetpu"], threads=1)
    image = tiny.image(3)
    for ours, theirs in zip(target.load(unsigned, threads=1).infer(image), signed.infer(image), strict=True):
        assert np.array_equal(ours, theirs)
