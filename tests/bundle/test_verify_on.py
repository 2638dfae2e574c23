"""Bundles prove themselves on processors that they may meet, and only healthy ones do."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yoloquant.bundle import BundleOptions, write
from yoloquant.bundle.verify_on import verify_on
from yoloquant.cli.main import main
from yoloquant.errors import BundleError, UsageError
from yoloquant.evaluation.processors import ROOT_VARIABLE
from yoloquant.quantization.artifact import Artifact
from yoloquant.runtime.apps.verify import VerifyResult, verify
from yoloquant.runtime.core.detector import Detector
from yoloquant.types import ExportedModel

pytestmark = pytest.mark.nightly  # minutes, most of them emulated or in processes of their own

TARGETS = ("onnxruntime", "openvino", "litert")
DEVICES = {"onnxruntime": "onnx", "openvino": "intel", "litert": "raspberrypi"}
needs_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("qemu-x86_64-static") is None,
    reason="needs an x86-64 machine with qemu-user-static",
)
needs_root = pytest.mark.skipif(
    ROOT_VARIABLE not in os.environ, reason=f"{ROOT_VARIABLE} names no aarch64 root (tools/make_device_root.py)"
)


@pytest.fixture(scope="module")
def bundle(
    demo_artifact: Artifact,
    exported: Callable[[str], ExportedModel],
    demo_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """The demonstration model's bundle for a target, made once."""
    made: dict[str, Path] = {}

    def get(target: str) -> Path:
        if target not in made:
            pytest.importorskip("ai_edge_litert" if target == "litert" else target)
            folder = tmp_path_factory.mktemp("bundles") / target
            options = BundleOptions(data=demo_data, limit=4)
            made[target] = write(
                demo_artifact, exported(target), device=DEVICES[target], folder=folder, options=options
            ).path
        return made[target]

    return get


@needs_x86
def test_a_bundle_verifies_on_emulated_x86_without_vnni(bundle: Callable[[str], Path]) -> None:
    (check,) = verify_on(bundle("onnxruntime"), "avx2", emulate=True)
    assert check.result == "pass", "\n".join(check.lines)
    assert check.emulated
    assert "emulated" in check.title


@needs_root
@pytest.mark.parametrize("target", TARGETS)
def test_bundles_verify_on_arm(bundle: Callable[[str], Path], target: str) -> None:
    (check,) = verify_on(bundle(target), "aarch64")
    assert check.result == "pass", "\n".join(check.lines)
    assert check.details["environment"]["machine"] == "aarch64"


@pytest.mark.parametrize("target", TARGETS)
def test_bundles_verify_here_and_under_the_limit_of_avx2(bundle: Callable[[str], Path], target: str) -> None:
    processors = "native,avx2" if target == "openvino" else "native"
    for check in verify_on(bundle(target), processors):
        assert check.result == "pass", "\n".join(check.lines)
        assert not check.emulated


def _swapped(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


def _not_scaled(tensor: np.ndarray) -> np.ndarray:
    if tensor.dtype.kind == "f":
        return tensor * np.float32(255)
    info = np.iinfo(tensor.dtype)
    return np.where(tensor > info.min, info.max, info.min).astype(tensor.dtype)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("wrong", ["red and blue exchanged", "not divided by 255"])
def test_wrong_preprocessing_never_verifies(
    bundle: Callable[[str], Path], target: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Detector.preprocess

    def preprocess(self, image, into=None):  # type: ignore[no-untyped-def]
        if wrong == "red and blue exchanged":
            return right(self, _swapped(image), into)
        tensor, where = right(self, image, into)
        return _not_scaled(tensor), where

    monkeypatch.setattr(Detector, "preprocess", preprocess)
    assert verify(bundle(target)).result is VerifyResult.FAIL


def test_bad_input_is_refused_before_anything_runs(bundle: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cpu=m68k is not a processor"):
        verify_on(bundle("onnxruntime"), "m68k")
    with pytest.raises(BundleError):
        verify_on(tmp_path, "native")


def test_what_cannot_be_run_is_an_error_and_no_pass(
    bundle: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["verify", str(bundle("onnxruntime")), "cpu=native,aarch64", f"cpu_root={tmp_path}"])
    printed = capsys.readouterr().out
    assert code == 4
    assert "native (this machine's own; not emulated): PASS" in printed
    assert "ERROR" in printed
    assert "is not a complete aarch64 root" in printed
