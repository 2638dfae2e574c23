"""Bundles in environments that hold nothing but their own wheels: what a device has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from yoloquant import ValidateOptions, api
from yoloquant.bundle import BundleOptions, device_named, write
from yoloquant.evaluation.results import ValidationResult
from yoloquant.quantization.artifact import Artifact
from yoloquant.types import ExportedModel

DEVICES = ("raspberrypi", "coral", "intel", "onnx")
EACH_TIME = ("intel", "onnx")  # LiteRT's two convert for a minute first
ALLOWED = {  # what the three wheels of a bundle bring along; neither torch nor ultralytics
    *("numpy", "opencv-python-headless", "ai-edge-litert", "openvino", "openvino-telemetry", "onnxruntime"),
    *(
        "backports-strenum",
        "colorama",
        "coloredlogs",
        "flatbuffers",
        "humanfriendly",
        "ml-dtypes",
        "mpmath",
        "packaging",
    ),
    *("protobuf", "sympy", "tqdm", "typing-extensions"),
}


def uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        pytest.skip("uv is not installed, so no empty environment can be made")
    return found


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """The Python of an environment with a requirements.txt alone; each is made once."""
    made: dict[str, Path] = {}

    def get(requirements: Path) -> Path:
        key = requirements.read_text()
        if key not in made:
            folder = tmp_path_factory.mktemp("environment") / "env"
            subprocess.run([uv(), "venv", "-q", "--python", sys.executable, folder], check=True)
            python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
            probe = [uv(), "pip", "install", "-q", "--dry-run", "--python", python, "numpy"]
            if subprocess.run(probe, check=False, capture_output=True, timeout=120).returncode:
                pytest.skip("no package index can be reached from here")
            install = [uv(), "pip", "install", "-q", "--python", python, "-r", requirements]
            subprocess.run(install, check=True, timeout=400)
            made[key] = python
        return made[key]

    return get


def validated(artifact: Artifact, exported: ExportedModel, data: Path) -> ValidationResult:
    """The package's own validation."""
    few = {"name": "few", "limits": {"fidelity": 0.5}, "min_images": 1, "min_detections": 1, "baseline_map": 0.0}
    options = ValidateOptions(gate=few, latency=False, memory=False, bootstrap=100, threads=1)
    return api.validate(artifact, [exported], data=data, options=options)


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name[: -len(".tar.gz")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "device", [pytest.param(d, marks=() if d in EACH_TIME else pytest.mark.nightly) for d in DEVICES]
)
def test_an_unpacked_bundle_proves_itself_with_its_own_wheels(
    device: str,
    demo_artifact: Artifact,
    exported: Callable[[str], ExportedModel],
    environment: Callable[[Path], Path],
    demo_data: Path,
    tmp_path: Path,
) -> None:
    target = device_named(device).target.name
    report = validated(demo_artifact, exported(target), demo_data)
    options = BundleOptions(archive=True, report=report, data=demo_data)
    made = write(demo_artifact, exported(target), device=device, folder=tmp_path / f"demo-{device}", options=options)
    assert made.archive is not None
    bundle = unpacked(made.archive, tmp_path / "device")
    python = environment(bundle / "requirements.txt")
    listed = subprocess.run([uv(), "pip", "list", "--format=json", "--python", python], check=True, capture_output=True)
    assert {package["name"].lower() for package in json.loads(listed.stdout)} <= ALLOWED

    elsewhere, out = tmp_path / "elsewhere", tmp_path / "result.json"
    elsewhere.mkdir()
    data = demo_data.parent  # a folder: reading a yaml would need a wheel more
    command = [str(python), str(bundle / "yoloquant_runtime"), "verify", f"data={data}", f"json={out}", "threads=1"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "YOLO", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr

    outcome = json.loads(out.read_text())
    checks = {check["name"]: check["values"] for check in outcome["checks"]}
    (row,) = (row for row in report.targets if row.target == target)
    assert row.accuracy is not None and row.accuracy.map50_95 > 0.2
    assert abs(checks["accuracy"]["metrics"]["map50_95"] - row.accuracy.map50_95) <= 0.001, "0.1 point"
    assert checks["accuracy"]["data_sha256"] == made.manifest.accuracy.data_sha256  # type: ignore[union-attr]
    assert checks["golden detections"]["total"] > 20
    assert outcome["bundle"] == made.manifest.id
    again = subprocess.run([*command[:-3], "threads=2"], cwd=elsewhere, capture_output=True, check=False, env=clean)
    assert again.returncode == 0, "its own bytecode cache must not disturb it"


@pytest.mark.slow
def test_a_wrong_version_of_the_runtime_is_refused_there(
    demo_artifact: Artifact,
    exported: Callable[[str], ExportedModel],
    environment: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    from dataclasses import replace

    onnx = device_named("onnx")
    python = environment(write_requirements(tmp_path, onnx.device.requirements))
    newer = replace(onnx.device.requires[0], minimum="99.0")
    later = replace(onnx, device=replace(onnx.device, requires=(newer,)))
    made = write(demo_artifact, exported("onnxruntime"), device=later, folder=tmp_path / "bundle")
    command = [str(python), str(made.path / "yoloquant_runtime"), "verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "this bundle needs 99.0 or newer" in done.stderr and 'pip install "onnxruntime>=99.0"' in done.stderr


def write_requirements(folder: Path, text: str) -> Path:
    path = folder / "requirements.txt"
    path.write_text(text)
    return path
