"""A distribution that nobody here knows brings a runtime, by its own files and an entry point alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

import yoloquant
from yoloquant.data.demo import IMGSZ, generator
from yoloquant.io import resource

pytestmark = pytest.mark.nightly  # minutes, most of them emulated or in processes of their own

ROOT = Path(yoloquant.__file__).resolve().parents[1]
TARGET = '''
"""The runtime of a box that nobody sells."""

from __future__ import annotations

from yoloquant.targets.base import Device, Requirement, Target
from yoloquant.targets.onnx.emission import Emission
from yoloquant.targets.onnx.emit import emit
from yoloquant.targets.onnx.read_scales import read_scales
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
DRIVER = """
import json, sys
from yoloquant.cli.main import main

done = {}
for name, arguments in json.loads(sys.argv[1]).items():
    print(f"== {name}", flush=True)
    try:
        done[name] = main(arguments)
    except SystemExit as exc:
        done[name] = exc.code
    print(f"== {name} ended with {done[name]}", flush=True)
"""


@dataclass(frozen=True)
class Ran:
    """What the command left behind.

    Attributes:
        folder: Where it worked.
        text: What it printed.
    """

    folder: Path
    text: str


def install(site: Path) -> None:
    """Put the distribution into a folder, as pip would."""
    package, info = site / "acme_box", site / "acme_box-1.0.dist-info"
    for folder in (package, info):
        folder.mkdir()
    (package / "__init__.py").write_text("")
    (package / "target.py").write_text(TARGET)
    (package / "device.py").write_text(BACKEND)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-box\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[yoloquant.targets]\nacme = acme_box.target:AcmeTarget\n")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Run every verb on the target, in one process of its own in which the distribution is installed."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    install(site)
    data = Path(generator().write_demo_set(folder / "data", train=8, val=4, imgsz=IMGSZ))
    model = f"model={resource('datasets', 'demo.pt')}"
    made = (model, f"data={data}", "images=8", f"imgsz={IMGSZ}", "scheme=acme")
    exports, few = folder / "exports", ("rounds=2", "runs=2", "warmup=1", "images=2", "threads=1")
    verbs = {
        "targets": ["targets"],
        "export": ["export", *made, "targets=acmebox", f"output={exports}"],
        "validate": ["validate", model, f"exports={exports}", f"data={data}", f"output={folder / 'report'}"],
        "predict": [
            *("predict", f"model={exports}", f"source={data.parent / 'images' / 'val'}"),
            *(f"output={folder / 'found.jsonl'}", "threads=1"),
        ],
        "bench": ["bench", f"model={exports}", f"output={folder / 'bench.json'}", *few],
        "bundle": [
            *("export", *made, "targets=acme", "bundle=true", "golden_images=1", f"output={folder / 'bundles'}"),
        ],
    }
    known = {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **known, "YOLO_AUTOINSTALL": "false"}
    line = [sys.executable, "-c", DRIVER, json.dumps(verbs)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment, timeout=550)
    for name in verbs:
        allowed = "[013]" if name == "validate" else "0"
        assert re.search(f"== {name} ended with {allowed}\n", done.stdout), done.stdout + done.stderr
    return Ran(folder, done.stdout)


@pytest.mark.slow
def test_the_command_lists_it(ran: Ran) -> None:
    (line,) = (line for line in ran.text.splitlines() if line.startswith("acme "))
    assert "acmebox" in line and "builds and runs" in line


@pytest.mark.slow
def test_validation_judges_what_was_exported(ran: Ran) -> None:
    assert (ran.folder / "exports" / "demo-acme.onnx").is_file()
    (row,) = json.loads((ran.folder / "report" / "report.json").read_text())["targets"]
    assert row["target"] == "acme" and not row["error"]
    assert row["accuracy"]["map50_95"] > 0.3 and row["latency"]["median_ms"] > 0


@pytest.mark.slow
def test_predict_and_bench_run_it(ran: Ran) -> None:
    lines = (ran.folder / "found.jsonl").read_text().splitlines()
    assert len(lines) == 4 and sum(len(json.loads(line)["class_id"]) for line in lines) > 0
    (artifact,) = json.loads((ran.folder / "bench.json").read_text())["artifacts"]
    assert artifact["name"] == "demo-acme.onnx" and artifact["steps_ms"]["inference"]["p50"] > 0


@pytest.mark.slow
def test_its_bundle_verifies_without_the_distribution(ran: Ran) -> None:
    (bundle,) = (p for p in (ran.folder / "bundles").iterdir() if (p / "manifest.json").is_file())
    assert bundle.name.endswith("acmebox")
    assert "onnxruntime" in (bundle / "requirements.txt").read_text()
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
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "backend of target 'acme' imports more than" in done.stdout
