"""A distribution that nobody here knows brings a runtime, by its own files and an entry point alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

import yoloquant
from yoloquant.data.demo import IMGSZ, generator
from yoloquant.io import resource

TARGET = '''
"""The runtime of a box that nobody sells."""

from __future__ import annotations

from yoloquant.targets.base import Device, Requirement, Target
from yoloquant.targets.onnx.emit import Emission, emit, read_scales
from yoloquant.targets.onnxruntime import onnx_metadata, recorded_points, write_onnx
from yoloquant.quantization.scheme import Scheme, complete


class AcmeTarget(Target):
    """Q/DQ ONNX for the box."""

    name = "acme"
    extra = "acme"
    requires = ("onnx", "onnxscript")
    runs_with = ("onnxruntime",)
    scheme = Scheme(name="acme", place=complete, description="everything")
    suffix = ".onnx"
    backend = "acme_box.device:AcmeBackend"
    devices = (Device("acmebox", "The box", (Requirement("onnxruntime", "onnxruntime", "1.15"),)),)

    def check(self, artifact):
        self.require()
        artifact.plan_for(self.scheme)

    def export(self, artifact, folder, stem):
        plan = artifact.plan_for(self.scheme)
        model = emit(artifact.graph, plan, Emission(), metadata=onnx_metadata(artifact, plan))
        return write_onnx(model, artifact, folder / f"{stem}-acme.onnx", target=self.name, plan=plan)

    def export_float(self, artifact, folder, stem):
        model = emit(artifact.graph, None, Emission(), metadata=onnx_metadata(artifact, None))
        return write_onnx(model, artifact, folder / f"{stem}-acme-fp32.onnx", target=self.name)

    def read_scales(self, exported):
        import onnx

        model = onnx.load(exported.path)
        return read_scales(model, recorded_points(model))
'''
BACKEND = '''
"""What runs on the box."""

from __future__ import annotations

import numpy as np

from yoloquant.runtime.backends.base import Backend


class AcmeBackend(Backend):
    """A loaded network."""

    name = "acme"

    def __init__(self, path, info, options):
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.info, self.layout = info, info.layout
        self.input_shape, self.input_dtype = (1, info.channels, *info.imgsz), np.dtype(np.float32)

    def run(self, tensor):
        return tuple(self._session.run(None, {"images": tensor}))

    @property
    def version(self):
        return "4.2"
'''
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run yoloquant in a process of its own in which the distribution is installed."""
    site = tmp_path_factory.mktemp("site")
    package, info = site / "acme_box", site / "acme_box-1.0.dist-info"
    for folder in (package, info):
        folder.mkdir()
    (package / "__init__.py").write_text("")
    (package / "target.py").write_text(TARGET)
    (package / "device.py").write_text(BACKEND)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-box\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[yoloquant.targets]\nacme = acme_box.target:AcmeTarget\n")
    root = Path(yoloquant.__file__).resolve().parents[1]
    known = {"PYTHONPATH": os.pathsep.join([str(site), str(root)]), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **known, "YOLO_AUTOINSTALL": "false"}

    def run(*arguments: str, allowed: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "yoloquant", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment, timeout=500)
        assert done.returncode in allowed, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    return Path(generator().write_demo_set(folder, train=8, val=4, imgsz=IMGSZ))


@pytest.fixture(scope="module")
def exports(command: Command, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``export`` made for the target, asked for by its device."""
    folder, model = tmp_path_factory.mktemp("exports"), resource("datasets", "demo.pt")
    calibrated = ("images=8", f"imgsz={IMGSZ}", "scheme=acme")
    command("export", f"model={model}", f"data={data}", "targets=acmebox", f"output={folder}", *calibrated)
    assert (folder / "demo-acme.onnx").is_file()
    return folder


@pytest.mark.slow
def test_the_command_lists_it(command: Command) -> None:
    (line,) = (line for line in command("targets").stdout.splitlines() if line.startswith("acme"))
    assert "acmebox" in line and "builds and runs" in line


@pytest.mark.slow
def test_validation_judges_it(command: Command, exports: Path, data: Path) -> None:
    model = resource("datasets", "demo.pt")
    command("validate", f"model={model}", f"exports={exports}", f"data={data}", allowed=(0, 1, 3))
    (row,) = json.loads((exports / "report" / "report.json").read_text())["targets"]
    assert row["target"] == "acme" and not row["error"]
    assert row["accuracy"]["map50_95"] > 0.3 and row["latency"]["median_ms"] > 0


@pytest.mark.slow
def test_predict_and_bench_run_it(command: Command, exports: Path, data: Path, tmp_path: Path) -> None:
    out, images = tmp_path / "found.jsonl", data.parent / "images" / "val"
    command("predict", f"model={exports}", f"source={images}", f"output={out}", "threads=1")
    assert sum(len(json.loads(line)["classes"]) for line in out.read_text().splitlines()) > 0
    out = tmp_path / "bench.json"
    few = ("rounds=2", "runs=2", "warmup=1", "images=2", "threads=1")
    command("bench", f"model={exports}", f"output={out}", *few)
    (artifact,) = json.loads(out.read_text())["artifacts"]
    assert artifact["name"] == "demo-acme.onnx" and artifact["steps_ms"]["inference"]["p50"] > 0


@pytest.mark.slow
def test_its_bundle_verifies_without_the_distribution(
    command: Command, exports: Path, data: Path, tmp_path: Path
) -> None:
    model = resource("datasets", "demo.pt")
    ways = (f"model={model}", f"data={data}", "images=8", f"imgsz={IMGSZ}", "scheme=acme")
    command("export", *ways, "targets=acme", "bundle=true", "golden_images=1", f"output={tmp_path}")
    (bundle,) = (p for p in tmp_path.iterdir() if (p / "manifest.json").is_file())
    assert bundle.name.endswith("acmebox")
    assert (bundle / "README.md").read_text().startswith("# ") and "onnxruntime" in (
        (bundle / "requirements.txt").read_text()
    )
    bare = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    line = [sys.executable, "-m", "yoloquant_runtime", "verify", "json=result.json"]
    done = subprocess.run(line, cwd=bundle, env=bare, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((bundle / "result.json").read_text())["environment"]
    assert (found["backend"], found["backend_version"]) == ("acme", "4.2")


def test_a_backend_that_needs_more_than_the_runtime_is_refused(tmp_path: Path) -> None:
    """A device has the runtime alone."""
    code = dedent(
        """
        from pathlib import Path
        from types import SimpleNamespace
        from acme.device import AcmeBackend
        from yoloquant.bundle.writer import copy_backend
        from yoloquant.errors import TargetError

        target = SimpleNamespace(name="acme", device_backend=lambda: AcmeBackend)
        try:
            copy_backend(Path("."), SimpleNamespace(target=target))
        except TargetError as exc:
            print(exc)
        """
    )
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "__init__.py").write_text("")
    more = BACKEND.replace("import numpy as np\n", "import numpy as np\n\nfrom yoloquant.io import atomic_path\n")
    (tmp_path / "acme" / "device.py").write_text(more)
    root = Path(yoloquant.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "backend of target 'acme' imports more than" in done.stdout
