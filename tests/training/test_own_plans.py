"""A trained portable plan is held against what each runtime's own plan gives by calibration alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from core_models import checkpoint, write_images

from yoloquant import CalibrationOptions, QuantizeOptions
from yoloquant.cli.main import main
from yoloquant.errors import DataError
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.ptq import quantize
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
from yoloquant.targets.schemes import resolve_schemes
from yoloquant.training.own_plans import OwnPlans, compare_own_plans
from yoloquant.training.train import TrainResult

OPTIONS = QuantizeOptions(
    imgsz=64,
    calibration=CalibrationOptions(images=8),
    ranges=CalibrationRecipe(*[Algorithm.MINMAX] * 5, score_shift=False),
)


def coarse(artifact: Artifact) -> Artifact:
    """A portable plan whose ranges are far too wide: what training must not be praised for."""
    plan = artifact.plans["portable"]
    points = tuple(
        p if p.params is None or p.fixed else replace(p, params=replace(p.params, scale=p.params.scale * 16))
        for p in plan.points
    )
    return replace(artifact, plans={"portable": replace(plan, points=points)}, bias={})


def test_a_runtimes_own_plan_that_does_better_is_named(tmp_path: Path) -> None:
    data, model = write_images(tmp_path / "set"), checkpoint(tmp_path / "m.pt")
    portable = quantize(str(model), data=data, schemes=resolve_schemes("portable"), options=OPTIONS)
    found = compare_own_plans(
        coarse(portable), str(model), data=data, schemes=resolve_schemes("portable,openvino"), options=OPTIONS, images=4
    )
    assert found.images == 4 and set(found.calibrated) == {"openvino"} == set(found.better)
    assert found.trained < found.calibrated["openvino"] <= 1


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ((), "calibration alone does better for openvino 0.9450 than the trained portable plan"),
        (("own_plans=false",), "note: both scores are of the portable plan"),
        (("weight_bits=4",), "note: both scores are of the portable plan"),
        (("fails",), "or train scheme=<runtime> (not measured: no images)"),
    ],
)
def test_the_command_says_so(
    words: tuple[str, ...],
    note: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m.pt", "d.yaml"):  # looked for before anything is imported
        (tmp_path / name).touch()

    class Trained(TrainResult):
        artifact = None  # type: ignore[assignment]

    def compare(*args: object, **kwargs: object) -> OwnPlans:
        if words == ("fails",):
            raise DataError("no images")
        return OwnPlans(0.93, {"openvino": 0.945}, 64)

    result = Trained(Path("best.pt"), Path(), 0.9, 0.8, scheme="portable")
    monkeypatch.setattr("yoloquant.api.train", lambda *args, **kwargs: result)
    monkeypatch.setattr("yoloquant.training.own_plans.compare_own_plans", compare)
    assert main(["train", "m.pt", "data=d.yaml", *(w for w in words if "=" in w)]) == 0
    assert note in capsys.readouterr().out


def test_the_advice_says_which_is_best() -> None:
    found = OwnPlans(0.93, {"litert": 0.91, "openvino": 0.945, "onnxruntime": 0.931}, 64)
    assert list(found.better) == ["openvino", "onnxruntime"]
    assert found.advice.startswith("calibration alone does better for openvino 0.9450, onnxruntime 0.9310 than the")
    assert "no runtime's own plan does better" in OwnPlans(0.95, {"litert": 0.91}, 64).advice
