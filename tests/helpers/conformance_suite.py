"""What every target must hold. A target's tests inherit all of it in one line::

class TestMyRuntime(TargetConformance): name = "myruntime"
"""

from __future__ import annotations

import errno
import importlib.util
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conformance_models import IMGSZ, NAMES, content

from yoloquant import targets
from yoloquant.errors import MissingExtraError, OutputError, PlanError
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.float_layers import leave_float
from yoloquant.quantization.layer_precision import give_precision, widen_layers
from yoloquant.quantization.scheme import Scheme
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.core.runner import Runner
from yoloquant.targets.base import Capabilities, Target
from yoloquant.types import ExportedModel, HeadLayout

EXTRAS = Path(__file__).resolve().parents[2] / "pyproject.toml"
STEM = "tiny"
FLOAT_LAYERS = ("model.1", "model.10.cv3.0*")  # a convolution among others, and the score branch of a level


class TargetConformance:
    """The suite.

    Attributes:
        name: Name of the target.
        agreement: How far the artifact may be from the plan's simulation, as a share of the quantization error itself
            (mean absolute differences): two right implementations differ by single rounding flips.
    """

    name: ClassVar[str]
    agreement: ClassVar[float] = 0.5

    def provenance(self, path: Path) -> Mapping[str, Any]:
        """What this project wrote into an artifact; override for formats that are not known here."""
        if path.suffix == ".tflite":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("yoloquant.json"))
        if path.suffix == ".onnx":
            import onnx

            return json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["yoloquant"])
        import yaml

        return json.loads(yaml.safe_load((path / "metadata.yaml").read_text(encoding="utf-8"))["yoloquant"])

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Target:
        target = targets.get(cls.name)
        if target.missing():
            pytest.skip(f"target '{cls.name}' needs {', '.join(target.missing())}, not installed here")
        return target

    @pytest.fixture(scope="class")
    @classmethod
    def exported(
        cls, target: Target, tiny_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory
    ) -> ExportedModel:
        return target.export(tiny_artifact, tmp_path_factory.mktemp(cls.name), STEM)

    @pytest.fixture(scope="class")
    @classmethod
    def exported_float(
        cls, target: Target, tiny_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory
    ) -> ExportedModel:
        return target.export_float(tiny_artifact, tmp_path_factory.mktemp(f"{cls.name}-fp32"), STEM)

    def test_describes_itself(self) -> None:
        cls = type(targets.get(self.name))
        assert cls.name == self.name == self.name.lower()
        assert f"\n{cls.extra} = [" in EXTRAS.read_text(encoding="utf-8"), "its extra is not in pyproject.toml"
        assert cls.requires and all(isinstance(m, str) for m in (*cls.requires, *cls.runs_with))
        assert isinstance(cls.scheme, Scheme) and cls.scheme.description
        assert cls.suffix and isinstance(cls.capabilities, Capabilities) and cls.capabilities.tasks
        assert cls.__doc__

    def test_check_rejects_a_model_without_a_plan(self, target: Target, tiny_artifact: Artifact) -> None:
        bare = replace(tiny_artifact, plans={})
        with pytest.raises(PlanError, match="no quantization plan"):
            target.check(bare)

    def test_check_accepts_its_own_plan(self, target: Target, tiny_artifact: Artifact) -> None:
        target.check(tiny_artifact)

    def test_names_the_extra_of_a_missing_module(
        self, tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = targets.get(self.name)
        lost, find = target.requires[0], importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == lost else find(n, *a))
        assert target.missing() == (lost,)
        for action in (target.require, lambda: target.check(tiny_artifact)):
            with pytest.raises(MissingExtraError, match=rf'pip install "yoloquant\[{target.extra}\]"') as caught:
                action()
            assert (caught.value.target, caught.value.module) == (self.name, lost)

    def test_writes_one_artifact(self, exported: ExportedModel) -> None:
        assert [exported.path] == list(exported.path.parent.iterdir())
        assert exported.path.name.startswith(STEM) and exported.path.name.endswith(targets.get(self.name).suffix)

    def test_describes_what_it_wrote(self, exported: ExportedModel, tiny_artifact: Artifact) -> None:
        target = targets.get(self.name)
        assert exported.target == self.name
        assert exported.info == tiny_artifact.info
        assert exported.layout in (tiny_artifact.info.layout, HeadLayout.RAW)
        assert exported.precision == "int8" and exported.scheme == target.scheme.name
        assert exported.size_bytes == sum(len(c) for c in content(exported.path).values()) > 0
        assert exported.metadata["model_sha256"] == tiny_artifact.model.sha256
        json.dumps(dict(exported.metadata))  # the export list stores it

    def test_leaves_nothing_behind_when_writing_fails(
        self, target: Target, tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match="No space left"):
            target.export(tiny_artifact, tmp_path, STEM)
        assert list(tmp_path.iterdir()) == []

    def test_carries_plan_versions_and_hashes(self, exported: ExportedModel, tiny_artifact: Artifact) -> None:
        found = self.provenance(exported.path)
        plan = tiny_artifact.plan_for(targets.get(self.name).scheme)
        assert found["model_sha256"] == tiny_artifact.model.sha256
        assert found["calibration"] == {"sha256": "0" * 64}
        assert {"yoloquant", "ultralytics", "torch"} <= set(found["versions"])
        assert found["plan"] == json.loads(plan.to_json())

    def test_loads_in_plain_ultralytics(
        self, exported: ExportedModel, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not exported.drop_in:
            pytest.skip("not a drop-in, and does not claim to be")
        from ultralytics import YOLO

        monkeypatch.chdir(tmp_path)
        model = YOLO(exported.path, task="detect")
        picture = np.ascontiguousarray((images[0][0].transpose(1, 2, 0)[..., ::-1] * 255).astype(np.uint8))
        model.predict(picture, imgsz=IMGSZ[0], device="cpu", verbose=False, save=False, conf=0.001)
        assert model.names == NAMES
        backend = model.predictor.model
        assert list(backend.imgsz) == list(IMGSZ)
        assert (backend.task, int(backend.stride)) == ("detect", exported.info.stride)

    def test_scales_are_the_plans_bit_by_bit(
        self, target: Target, exported: ExportedModel, tiny_artifact: Artifact
    ) -> None:
        _same_ranges(target.read_scales(exported), tiny_artifact, target, tiny_artifact.plan_for(target.scheme).points)

    def test_portable_ranges_arrive_unchanged(
        self, target: Target, portable_artifact: Artifact, tmp_path: Path
    ) -> None:
        exported = target.export(portable_artifact, tmp_path, STEM)
        points = portable_artifact.plan_for(target.scheme).points
        portable = portable_artifact.plans["portable"].by_name
        assert points and {p.name for p in points} <= set(portable)
        _same_ranges(target.read_scales(exported), portable_artifact, target, [portable[p.name] for p in points])

    @pytest.mark.usefixtures("every_time")
    def test_same_input_gives_the_same_bytes(
        self, target: Target, exported: ExportedModel, tiny_artifact: Artifact, tmp_path: Path
    ) -> None:
        again = target.export(tiny_artifact, tmp_path, STEM)
        assert content(again.path) == content(exported.path)

    def test_runs_as_simulated(
        self, target: Target, exported: ExportedModel, tiny_artifact: Artifact, images: list[np.ndarray]
    ) -> None:
        plan = tiny_artifact.plan_for(target.scheme)
        simulated = simulate(tiny_artifact.graph, plan, bias=tiny_artifact.bias_for(target.scheme))
        with _closing(target.load(exported, threads=1)) as runner:
            got = np.concatenate([runner(image)[0] for image in images])
            assert runner.layout is tiny_artifact.info.layout
        want, exact = _run(simulated, images), _run(tiny_artifact.graph.module, images)
        assert got.shape == want.shape and got.dtype == np.float32
        for part, rows in (("boxes", slice(0, 4)), ("scores", slice(4, None))):
            error = np.abs(want[:, rows] - exact[:, rows]).mean()
            gap = np.abs(got[:, rows] - want[:, rows]).mean()
            assert error > 0, "the simulation quantizes nothing"
            assert gap <= self.agreement * error, f"{part}: off by {gap:.3g}, quantization itself by {error:.3g}"

    def test_float_artifact_is_the_float_model(
        self, target: Target, exported_float: ExportedModel, tiny_artifact: Artifact, images: list[np.ndarray]
    ) -> None:
        assert (exported_float.precision, exported_float.scheme) == ("fp32", "")
        assert exported_float.target == self.name and exported_float.info == tiny_artifact.info
        with _closing(target.load(exported_float, threads=1)) as runner:
            got = np.concatenate([runner(image)[0] for image in images])
        np.testing.assert_allclose(got, _run(tiny_artifact.graph.module, images), rtol=1e-3, atol=1e-3)

    def test_layers_left_in_float(
        self, target: Target, tiny_artifact: Artifact, images: list[np.ndarray], tmp_path: Path
    ) -> None:
        """The plan's float layers are executed as simulated, or refused by their names before any work starts."""
        graph, scheme = tiny_artifact.graph, target.scheme
        plan = leave_float(graph, tiny_artifact.plan_for(scheme), FLOAT_LAYERS)
        artifact = replace(tiny_artifact, plans={**tiny_artifact.plans, scheme.name: plan})
        if not target.capabilities.float_layers:
            with pytest.raises(PlanError, match=r"leaves model\.1, .* in float"):
                target.check(artifact)
            return
        exported = target.export(artifact, tmp_path, STEM)
        _same_ranges(target.read_scales(exported), artifact, target, plan.points)
        simulated = simulate(graph, plan, bias=artifact.bias_for(scheme))
        with _closing(target.load(exported, threads=1)) as runner:
            got = np.concatenate([runner(image)[0] for image in images])
        want, exact = _run(simulated, images), _run(graph.module, images)
        assert np.abs(got - want).mean() <= self.agreement * np.abs(want - exact).mean()

    @pytest.mark.parametrize("precision", ["fp16", "w8a16"])
    def test_layers_of_another_precision(
        self, precision: str, target: Target, tiny_artifact: Artifact, images: list[np.ndarray], tmp_path: Path
    ) -> None:
        """They are executed as simulated, or refused by their names before any work starts."""
        graph, scheme = tiny_artifact.graph, target.scheme
        plan = tiny_artifact.plan_for(scheme)
        plan = widen_layers(graph, give_precision(graph, plan, (), [(layer, precision) for layer in FLOAT_LAYERS]))
        artifact = replace(tiny_artifact, plans={**tiny_artifact.plans, scheme.name: plan})
        if precision not in target.capabilities.layer_precisions:
            # one that has no float layers either says that first
            with pytest.raises(PlanError, match=rf"(in {precision}, .* for|leaves) model\.1, model\.10\.cv3\.0"):
                target.check(artifact)
            return
        exported = target.export(artifact, tmp_path, STEM)
        _same_ranges(target.read_scales(exported), artifact, target, plan.points)
        simulated = simulate(graph, plan, bias=artifact.bias_for(scheme))
        with _closing(target.load(exported, threads=1)) as runner:
            got = np.concatenate([runner(image)[0] for image in images])
        want, exact = _run(simulated, images), _run(graph.module, images)
        assert np.abs(got - want).mean() <= self.agreement * np.abs(want - exact).mean()

    @pytest.mark.parametrize("precision", ["fp16", "dynamic", "weights", "w8a16"])
    def test_other_precisions_lose_less_than_int8(
        self,
        precision: str,
        exported: ExportedModel,
        exported_float: ExportedModel,
        tiny_artifact: Artifact,
        images: list[np.ndarray],
        tmp_path: Path,
    ) -> None:
        """They quantize less; and the file, its description and what the target is asked for by name agree."""
        if precision not in targets.get(self.name).variants:
            pytest.skip(f"target '{self.name}' has no precision '{precision}'")
        target = targets.get(f"{self.name}:{precision}")
        assert target.wanted == f"{self.name}:{precision}"
        found = target.export(tiny_artifact, tmp_path, STEM)
        assert found.name == target.wanted and found.path.name.startswith(f"{STEM}-")
        assert precision in found.path.name and found.notes and found.path != exported.path
        assert found.size_bytes < 0.9 * exported_float.size_bytes or not target.capabilities.runs_here
        exact = _run(tiny_artifact.graph.module, images)
        errors = []
        for each in (found, exported):
            with _closing(target.load(each, threads=1)) as runner:
                errors.append(np.abs(np.concatenate([runner(image)[0] for image in images]) - exact).mean())
        assert 0 < errors[0] < errors[1], "off by more than int8"
        plan = target.plan(tiny_artifact)
        _same_ranges(target.read_scales(found), tiny_artifact, target, plan.points if plan else ())


class _closing:
    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def __enter__(self) -> Runner:
        return self.runner

    def __exit__(self, *_: object) -> None:
        self.runner.close()


def _run(module: Any, images: list[np.ndarray]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return np.concatenate([module(torch.from_numpy(image)).numpy() for image in images])


def _same_ranges(found: Mapping[str, Any], artifact: Artifact, target: Target, points: Any) -> None:
    assert set(found) == {p.name for p in points}
    for point in points:
        scale, zero_point = found[point.name]
        assert scale.dtype == np.float32
        assert np.array_equal(scale, point.params.scale), point.name
        assert np.array_equal(zero_point, point.params.zero_point), point.name
