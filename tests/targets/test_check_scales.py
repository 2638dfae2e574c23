"""What a file holds is read back from its bytes and held against the plan, by every export and every bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from core_models import tiny_artifact
from onnx import numpy_helper

from yoloquant import targets
from yoloquant.bundle import BundleOptions, write
from yoloquant.errors import TargetError
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.plan import Plan
from yoloquant.targets.check_scales import KEY, check_scales, same_scale
from yoloquant.targets.export import export
from yoloquant.targets.exports import FILE_NAME, load_exports
from yoloquant.targets.onnxruntime import OnnxRuntimeTarget
from yoloquant.types import ExportedModel


def plan() -> Plan:
    return tiny_artifact().plan_for(targets.get("onnxruntime").scheme)


def held(of: Plan) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = {}
    for point in of.points:
        assert point.params is not None
        found[point.name] = (point.params.scale.copy(), point.params.zero_point.copy())
    return found


def test_the_plans_own_scales_pass_and_are_counted() -> None:
    wanted = plan()
    assert check_scales(wanted, held(wanted)) == sum(scale.size for scale, _ in held(wanted).values())


@pytest.mark.parametrize("kind", ["activation", "weight"])
def test_one_last_bit_is_noticed_and_named(kind: str) -> None:
    wanted = plan()
    found, point = held(wanted), next(p for p in wanted.points if p.kind.value == kind)
    scale, zero = found[point.name]
    moved = scale.copy()
    moved.reshape(-1)[-1] = np.nextafter(moved.reshape(-1)[-1], np.float32(9))
    with pytest.raises(TargetError, match=rf"1 of {len(wanted.points)} points .* in the file .*: {point.name};"):
        check_scales(wanted, {**found, point.name: (moved, zero)})
    with pytest.raises(TargetError, match=f"another range in 'x.onnx' .*: {point.name};"):
        check_scales(wanted, {**found, point.name: (scale, zero + 1)}, what="'x.onnx'")


def test_missing_and_foreign_points_are_named() -> None:
    wanted = plan()
    found, first = held(wanted), wanted.points[0].name
    with pytest.raises(TargetError, match=f"lacks 1 of the {len(wanted.points)} points of its plan: {first}$"):
        check_scales(wanted, {name: pair for name, pair in found.items() if name != first})
    with pytest.raises(TargetError, match=r"has 1 points that its plan has not: elsewhere$"):
        check_scales(wanted, {**found, "elsewhere": found[first]})


def test_as_many_channels() -> None:
    """One scale that serves all channels is not the plan's one for each, even where all are equal."""
    point = next(p for p in plan().weights if p.params is not None and p.params.scale.size > 1)
    assert point.params is not None
    scale, zero = np.full_like(point.params.scale, 0.5), np.zeros_like(point.params.zero_point)
    alike = replace(point, params=replace(point.params, scale=scale, zero_point=zero))
    assert same_scale(alike, (scale, zero))
    assert not same_scale(alike, (scale[:1], zero[:1]))
    assert not same_scale(None, (scale, zero))
    assert not same_scale(replace(point, params=None), (scale, zero))


@pytest.fixture
def two_percent_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An exporter that writes one layer's weight scales 2 % too large."""
    export_ = OnnxRuntimeTarget.export

    def faulty(self: Any, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        exported = export_(self, artifact, folder, stem)
        spoil(exported.path)
        return exported

    monkeypatch.setattr(OnnxRuntimeTarget, "export", faulty)
    yield


def spoil(path: Path) -> None:
    model = onnx.load(path)
    wrong = next(i for i in model.graph.initializer if i.name.endswith("weight/scale"))
    wrong.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(wrong) * np.float32(1.02), wrong.name))
    onnx.save(model, path)


@pytest.mark.usefixtures("two_percent_off")
def test_a_faulty_exporter_is_noticed_and_nothing_is_listed(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"1 of \d+ points have another range in 'model-onnxruntime.onnx' .*:weight;"):
        export(tiny_artifact(), targets.resolve("onnxruntime"), folder=tmp_path)
    assert not (tmp_path / FILE_NAME).exists()
    assert not list(tmp_path.glob("*.onnx")), "nobody takes it for a good one"


@pytest.mark.usefixtures("two_percent_off")
def test_the_others_are_exported_with_keep_going(tmp_path: Path) -> None:
    found = export(tiny_artifact(), targets.resolve("onnxruntime,openvino"), folder=tmp_path, keep_going=True)
    assert [e.target for e in found.exports] == ["openvino"]
    assert "another range" in found.errors["onnxruntime"]


def test_the_listing_says_how_much_was_read_back(tmp_path: Path) -> None:
    artifact = tiny_artifact()
    export(artifact, targets.resolve("onnxruntime,openvino"), folder=tmp_path)
    for listed in load_exports(tmp_path):
        found = targets.get(listed.target).read_scales(listed)
        assert listed.metadata[KEY] == {"points": len(found), "values": sum(s.size for s, _ in found.values())}


def test_a_bundle_of_a_file_with_other_scales_is_refused(tmp_path: Path) -> None:
    """No device could tell: 2 % of one scale are less than two correct kernels may differ by."""
    artifact = tiny_artifact()
    (exported,) = export(artifact, targets.resolve("onnxruntime"), folder=tmp_path / "exports").exports
    options = BundleOptions(golden_images=1)
    write(artifact, exported, device="onnx", folder=tmp_path / "healthy", options=options)
    spoil(exported.path)
    with pytest.raises(TargetError, match=r"another range in 'model-onnxruntime.onnx'"):
        write(artifact, exported, device="onnx", folder=tmp_path / "bundle", options=options)
    assert not (tmp_path / "bundle").exists()
