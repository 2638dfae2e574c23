"""Verdicts on other processors: found, refused in one sentence, and computed by a worker like any target."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from core_models import sample_images, tiny_artifact, write_images

from yoloquant import targets
from yoloquant.errors import TargetError, UsageError
from yoloquant.evaluation import processors
from yoloquant.evaluation.emulated_runner import EmulatedRunner
from yoloquant.evaluation.processors import Launch, launch, parse
from yoloquant.evaluation.validate import validate
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.runtime.backends import backend_class
from yoloquant.runtime.device.processors import WITHOUT_VNNI
from yoloquant.runtime.tasks import spec_of
from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task, Verdict

X86 = platform.machine() == "x86_64"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """A small detector for ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    return targets.get("onnxruntime").export(tiny_artifact(), tmp_path_factory.mktemp("exports"), "tiny")


def test_names() -> None:
    assert parse("native, AVX2,native") == ("native", "avx2")
    with pytest.raises(UsageError, match=r"cpu=sparc is not a processor; there are native .*avx2 .*aarch64 "):
        parse("native,sparc")
    with pytest.raises(UsageError, match="is not a processor"):
        parse("")


def test_what_does_not_run_on_a_cpu_has_no_verdict() -> None:
    with pytest.raises(TargetError, match="'tensorrt' does not run on a CPU"):
        launch("avx2", "tensorrt")


def test_a_backend_says_itself_that_any_cpu_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = backend_class("tensorrt")
    monkeypatch.setattr(kind, "any_cpu", True)
    monkeypatch.setattr(kind, "without_vnni", {"ISA": "AVX2"})
    assert launch("native", "tensorrt").command == (sys.executable,)
    if X86:
        assert launch("avx2", "tensorrt").environment == {"ISA": "AVX2"} and not launch("avx2", "tensorrt").emulated
    assert launch("native", "executorch").command == (sys.executable,), "XNNPACK has kernels for every CPU"
    with pytest.raises(TargetError, match="'acme' does not run on a CPU"):
        launch("native", "acme")  # what lives elsewhere, and is in no bundle's runtime


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a complete aarch64 root"),
        ("{", "is not a complete aarch64 root"),
        ('{"python": "usr/bin/python3.11", "site": "site"}', "is not a complete aarch64 root"),
        ('{"python": "usr/bin/python3.11", "site": "site", "runtimes": ["litert"]}', "python3.11 or site is missing"),
    ],
)
def test_incomplete_roots_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "device.json").write_text(content)
    with pytest.raises(TargetError, match=message) as error:
        launch("aarch64", "litert", root=tmp_path)
    assert "tools/make_device_root.py" in str(error.value)
    assert "\n" not in str(error.value)


def _root(folder: Path) -> Path:
    (folder / "site").mkdir()
    (folder / "python").touch()
    data = {"python": "python", "site": "site", "runtimes": ["litert"]}
    (folder / "device.json").write_text(json.dumps(data))
    return folder


def test_a_runtime_without_a_wheel_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"openvino does not run in the aarch64 root .*, litert does"):
        launch("aarch64", "openvino", root=_root(tmp_path))


def test_no_root_and_no_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(processors.ROOT_VARIABLE, raising=False)
    with pytest.raises(TargetError, match="cpu_root= or YOLOQUANT_AARCH64_ROOT"):
        launch("aarch64", "litert")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(TargetError, match="apt-get install qemu-user-static"):
        launch("aarch64", "litert", root=_root(tmp_path))


@pytest.mark.skipif(not X86, reason="this machine is not an x86-64")
def test_x86_without_vnni_is_emulated_only_where_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(processors, "has_vnni", lambda: True)
    emulated = launch("avx2", "litert")
    assert emulated.command[:3] == ("/usr/bin/qemu-x86_64-static", "-cpu", "max")
    # /proc/cpuinfo is the machine's own there, whose VNNI the emulated processor lacks
    assert emulated.variables()[WITHOUT_VNNI] == "1"
    assert launch("avx2", "openvino").environment == {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert not launch("avx2", "openvino").emulated
    monkeypatch.setattr(processors, "has_vnni", lambda: False)
    assert launch("avx2", "litert").command == (sys.executable,)
    assert launch("avx2", "litert", emulate=True).emulated


def test_a_worker_gives_what_this_process_gives(exported: ExportedModel) -> None:
    here = targets.get("onnxruntime").load(exported, 1)
    there = EmulatedRunner(exported, "onnxruntime", launch("native", "onnxruntime"), 1)
    try:
        assert there.layout is here.layout
        for image in sample_images(2):
            for ours, theirs in zip(here(image), there(image), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    finally:
        here.close()
        there.close()


def test_a_worker_prepares_pictures_itself(exported: ExportedModel) -> None:
    """What it is given as prepared here does not count: another processor's OpenCV makes other pixels."""
    picture = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    image, _ = spec_of(exported.info.task).prepare(picture, exported.info.imgsz)
    here = targets.get("onnxruntime").load(exported, 1)
    there = EmulatedRunner(exported, "onnxruntime", launch("native", "onnxruntime"), 1)
    try:
        theirs = there.decode(there.infer_picture(picture, np.zeros_like(image)))
        for ours, found in zip(here(image), theirs, strict=True):
            np.testing.assert_array_equal(ours, found)
    finally:
        here.close()
        there.close()


def test_a_worker_that_cannot_load_says_why(exported: ExportedModel, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(TargetError, match="cpu=native: ONNX Runtime cannot load"):
        EmulatedRunner(replace(exported, path=broken), "onnxruntime", launch("native", "onnxruntime"), 1)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('illegal instruction')", "ended with status 1: illegal instruction"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with status -11: no output"),
        ("import time; time.sleep(60)", "no answer within"),
    ],
)
def test_emulation_that_dies_is_an_error(exported: ExportedModel, script: str, message: str) -> None:
    start = Launch("avx2", (sys.executable, "-c", script))
    with pytest.raises(TargetError, match=message) as error:
        EmulatedRunner(exported, "onnxruntime", start, 1, timeout_s=3 if "sleep" in script else 30)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", [8, 320])  # an image that fits into a pipe, and one that does not
def test_a_worker_that_stops_answering_is_ended(side: int) -> None:
    info = ModelInfo(Task.DETECT, ("a",), (32, 32))
    exported = ExportedModel("onnxruntime", Path("none.onnx"), info, HeadLayout.DECODED)
    script = (
        "import struct, sys, time; out = sys.stdout.buffer; out.write(struct.pack('<Q', 3) + b'1.0'); out.flush(); "
        "sys.stdin.buffer.read(8); time.sleep(60)"
    )
    there = EmulatedRunner(exported, "onnxruntime", Launch("avx2", (sys.executable, "-c", script)), 1)
    there.timeout_s = 1.0  # only now: on a busy machine starting may take longer
    try:
        with pytest.raises(TargetError, match="no answer within 1 s; the process was ended"):
            there.infer(np.zeros((1, 3, side, side), np.float32))
        assert there._process.wait(timeout=10) < 0, "killed"
    finally:
        there.close()


@pytest.mark.slow
@pytest.mark.skipif(not X86, reason="this machine is not an x86-64")
@pytest.mark.skipif(shutil.which("qemu-x86_64-static") is None, reason="qemu-user-static is not installed")
def test_emulated_x86_without_vnni_computes_what_exact_sums_give(exported: ExportedModel) -> None:
    """The first convolution has half range and the others safe pairs where they need it: nothing clamps."""
    here = targets.get("onnxruntime").load(exported, 1)
    there = EmulatedRunner(exported, "onnxruntime", launch("avx2", "onnxruntime", emulate=True), 1, timeout_s=300)
    try:
        image = sample_images(1)[0]
        for ours, theirs in zip(here(image), there(image), strict=True):
            scale = np.abs(ours).max()
            assert np.abs(ours - theirs).mean() < 0.02 * scale
    finally:
        here.close()
        there.close()


def test_every_processor_is_a_row_and_one_that_cannot_run_is_an_error(exported: ExportedModel, tmp_path: Path) -> None:
    images = write_images(tmp_path / "data").parent
    options = ValidateOptions(
        cpu="avx2,aarch64", cpu_root=tmp_path, latency=False, memory=False, bootstrap=100, limit=2, threads=1
    )
    result = validate(tiny_artifact(), [exported], source=images, options=options)
    rows = {row.target: row for row in result.targets}
    assert set(rows) == {"onnxruntime@avx2", "onnxruntime@aarch64"}
    assert rows["onnxruntime@aarch64"].verdict is Verdict.ERROR
    assert "is not a complete aarch64 root" in rows["onnxruntime@aarch64"].error
    assert result.verdict is Verdict.ERROR
    if X86:
        assert rows["onnxruntime@avx2"].comparison is not None
        assert rows["onnxruntime@avx2"].latency is None
        assert any("avx2" in note and "accuracy only" in note for note in rows["onnxruntime@avx2"].notes)
