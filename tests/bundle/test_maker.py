from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from yoloquant.bundle import BundleOptions, make
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.plan import Plan
from yoloquant.runtime import __main__ as command
from yoloquant.runtime.core.bundle_manifest import read
from yoloquant.targets import resolve
from yoloquant.targets.export import export
from yoloquant.targets.exports import note_in_listing


@pytest.mark.slow
def test_every_device_gets_a_bundle_of_its_own(demo_artifact: Artifact, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    made = make(
        demo_artifact,
        devices="onnx,jetson",
        folder=tmp_path,
        options=BundleOptions(golden_images=1, archive=True),
        progress=lambda done, total, name: seen.append((done, total, name)),
    )
    assert [b.path for b in made] == [tmp_path / "demo-onnx", tmp_path / "demo-jetson"]
    assert seen == [(0, 2, "onnx"), (1, 2, "jetson"), (2, 2, "")]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("demo-jetson", "demo-jetson.tar.gz", "demo-onnx", "demo-onnx.tar.gz"),
    ]
    for bundle, scheme in zip(made, ("onnxruntime", "tensorrt"), strict=True):
        plan = Plan.from_json((bundle.path / "plan.json").read_text())
        assert plan == demo_artifact.plans[scheme]
        assert bundle.manifest.plan["weights"] == len(tuple(plan.weights)) > 20
        assert bundle.manifest.precision == "int8"
        assert str(demo_artifact.info.imgsz[0]) in (bundle.path / "README.md").read_text()

    jetson = made[1]
    planned = Plan.from_json((jetson.path / "plan.json").read_text()).weights
    assert jetson.manifest.expected_int8 == tuple(p.name.removesuffix(":weight") for p in planned)
    assert jetson.manifest.golden["made_with"]["simulated"] is True
    model = jetson.path / jetson.manifest.model
    assert {p.name for p in model.parent.iterdir()} >= {model.name, f"{model.stem}-fp16.onnx"}
    assert "tensorrt" not in (jetson.path / "requirements.txt").read_text()
    assert not made[0].manifest.expected_int8 and not made[0].manifest.golden["made_with"]["simulated"]


@pytest.mark.slow
def test_a_bundle_holds_the_confidence_that_validation_matched(demo_artifact: Artifact, tmp_path: Path) -> None:
    """It is exported anew, and the same bytes deserve the same confidence."""
    checkpoint = demo_artifact.save(tmp_path / "demo_int8.pt")
    artifact = Artifact.load(checkpoint)
    outcome = export(artifact, resolve("onnxruntime"))
    noted = {"matched_conf": 0.21, "matched_conf_per_class": [0.21] * len(artifact.info.names)}
    note_in_listing(outcome.exports, {outcome.exports[0].path: noted})
    (made,) = make(artifact, devices="onnx", folder=tmp_path, options=BundleOptions(golden_images=1))
    assert {key: made.manifest.source.get(key) for key in noted} == noted


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_a_jetson_bundle_says_what_is_missing(
    demo_artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made,) = make(demo_artifact, devices="jetson", folder=tmp_path, options=BundleOptions(golden_images=1))
    assert command.main(["verify", f"bundle={made.path}"]) == 4
    assert "JetPack" in capsys.readouterr().err
    assert command.main(["info", f"bundle={made.path}"]) == 0
    assert read(made.path).id in capsys.readouterr().out
