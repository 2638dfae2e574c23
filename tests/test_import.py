"""Importing the package, and asking for help, load nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import yoloquant

HEAVY = (
    "torch", "torchvision", "ultralytics", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "litert_torch",
    "ai_edge_litert", "tensorrt", "tensorrt_rtx", "matplotlib", "pydantic", "jinja2", "cv2", "PIL", "scipy", "pandas",
    "optuna", "sqlalchemy", "ray",
)  # fmt: skip


def loaded_after(code: str) -> list[str]:
    """Heavy modules that a fresh process has loaded once it ran the code."""
    script = f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return list(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import yoloquant",
        "import yoloquant; dir(yoloquant); yoloquant.Task; yoloquant.YoloquantError; yoloquant.ExportedModel",
        "import yoloquant.cli.main, yoloquant.cli.parser, yoloquant.errors, yoloquant.types",
        "import yoloquant.targets as t; [t.get(n).missing() for n in t.names()]; t.devices(); t.available()",
    ],
)
def test_import_is_light(code: str) -> None:
    assert loaded_after(code) == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["quantize", "--help"], ["export", "--help"], ["targets"], ["qantize"]]
)
def test_command_line_is_light(arguments: list[str]) -> None:
    code = (
        "import runpy, contextlib, io\n"
        f"sys.argv = ['yoloquant', *{arguments!r}]\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    runpy.run_module('yoloquant.cli.main', run_name='__main__')"
    )
    checks = (
        {"pydantic"} if arguments[0] in ("quantize", "export", "targets") else set()
    )  # what options are defined with
    assert set(loaded_after(code)) <= checks


@pytest.mark.parametrize("verb", ["quantize", "export", "train", "prune", "analyze", "search", "run", "tune"])
def test_missing_data_are_told_before_anything_heavy_is_loaded(verb: str, tmp_path: Path) -> None:
    (tmp_path / "m.pt").touch()
    words = [verb, str(tmp_path / "m.pt"), f"data={tmp_path / 'none.yaml'}"]
    words += {"search": ["fidelity=0.9"], "tune": ["space=ptq"]}.get(verb, [])
    code = (
        "import contextlib, io\nfrom yoloquant.cli.main import main\n"
        f"with contextlib.redirect_stderr(io.StringIO()) as told:\n    assert main({words!r}) == 2\n"
        'assert "none.yaml\' does not exist" in told.getvalue(), told.getvalue()'
    )
    assert not {"torch", "ultralytics", "optuna", "onnx"} & set(loaded_after(code))


def test_running_the_module_prints_help() -> None:
    command = [sys.executable, "-m", "yoloquant", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "quantize" in result.stdout and "Exit codes" in result.stdout and not result.stderr


def test_every_public_name_resolves() -> None:
    assert len(set(yoloquant.__all__)) == len(yoloquant.__all__)
    assert sorted(yoloquant.__all__) == list(yoloquant.__all__)
    for name in yoloquant.__all__:
        assert getattr(yoloquant, name) is not None
    assert {*yoloquant._WHERE, "__version__"} == set(yoloquant.__all__)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        yoloquant.quantise  # noqa: B018
    with pytest.raises(ImportError):
        from yoloquant import quantise  # noqa: F401


VERBS = ("analyze", "bench", "compare", "export", "history", "load", "plan", "predict", "prune", "quantize", "run",
         "search", "train", "tune", "validate", "write_report")  # fmt: skip


def test_verbs_stay_functions_and_no_other_name_is_public() -> None:
    """A submodule of a verb's name would replace the function once it is imported."""
    code = f"""
import importlib, pkgutil, types
import yoloquant
for name in yoloquant.__all__:
    getattr(yoloquant, name)
for module in pkgutil.walk_packages(yoloquant.__path__, "yoloquant."):
    if not module.name.startswith("yoloquant.targets."):
        importlib.import_module(module.name)
assert all(isinstance(getattr(yoloquant, verb), types.FunctionType) for verb in {VERBS!r})
found = {{n for n, v in vars(yoloquant).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}}
extra = found - set(yoloquant.__all__) - {{"annotations", "TYPE_CHECKING", "Any"}}
assert not extra, extra
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_all_public_modules_are_typed_and_versioned() -> None:
    from pathlib import Path

    assert (Path(yoloquant.__file__).parent / "py.typed").is_file()
    assert yoloquant.__version__.count(".") == 2
