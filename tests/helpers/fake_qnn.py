"""Stand-ins of ``onnxruntime`` and ``onnxruntime_qnn`` for another process, told by the network what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

_RUNTIME = """
import os, pathlib, sys, time
from types import SimpleNamespace

import numpy as np

__version__ = "1.0"


class SessionOptions:
    def __init__(self):
        self.entries, self.choices = {}, {}

    def add_session_config_entry(self, key, value):
        self.entries[key] = value

    def add_provider_for_devices(self, devices, choices):
        self.choices = choices


def register_execution_provider_library(name, path):
    pass


def get_ep_devices():
    return [SimpleNamespace(ep_name="QNNExecutionProvider")]


class InferenceSession:
    def __init__(self, path, options):
        self.does, self.options = pathlib.Path(path).read_text(), options
        print("noise on standard output", flush=True)
        if self.does == "refuse":
            raise RuntimeError("1002: no such operation")

    def get_inputs(self):
        return [SimpleNamespace(name="images", shape=[1, 3, 8, 8])]

    def run(self, outputs, feeds):
        (image,) = feeds.values()
        if self.does == "crash":
            print("the last words", file=sys.stderr, flush=True)
            os.abort()
        if self.does == "hang":
            time.sleep(60)
        if self.does == "fail":
            raise RuntimeError("out of memory")
        fallback = self.options.entries["session.disable_cpu_ep_fallback"]
        soc = float(self.options.choices.get("soc_model", 0))
        return [image * 2, np.full((1, 2), soc), np.array([float(fallback)])]
"""
_PROVIDER = """
__version__ = "2.0"


def get_library_path():
    return "provider.so"


def get_qnn_htp_path():
    return "htp.so"
"""


def fake_packages(folder: Path, monkeypatch: pytest.MonkeyPatch, *, provider: bool = True) -> None:
    """Let processes that are started from now on import the stand-ins."""
    (folder / "onnxruntime.py").write_text(_RUNTIME)
    if provider:
        (folder / "onnxruntime_qnn.py").write_text(_PROVIDER)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def network(folder: Path, does: str) -> Path:
    """A file that the stand-in takes: ``run``, ``refuse``, ``crash``, ``hang`` or ``fail``."""
    path = folder / "net.onnx"
    path.write_text(does)
    return path
