"""The runtime is copied to devices: every file must be valid for Python 3.8, stand alone and load little."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import yoloquant.runtime

ROOT = Path(yoloquant.runtime.__file__).resolve().parent
FILES = sorted(ROOT.rglob("*.py"))
ALLOWED = {"numpy", "cv2"}
"""What may be imported when a module is, besides the standard library."""
LATER = {
    "ai_edge_litert", "tflite_runtime", "onnxruntime", "openvino", "tensorrt", "pycuda", "cuda", "yaml", "psutil",
    "scipy", "torch",
}  # fmt: skip
"""What may be imported inside functions: the runtimes, and what a device need not have."""


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports(tree: ast.AST, *, nested: bool = True) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements, those under ``if TYPE_CHECKING`` left out; nested ones in functions on demand."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        elif nested or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports(node, nested=nested)


def top_level(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Names of the packages that a statement imports from; none for a relative import."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {str(node.module).split(".")[0]} if node.level == 0 else set()


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runtime alone, under the name that it has in a bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copytree(ROOT, folder / "yoloquant_runtime", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_there_is_something_to_check() -> None:
    assert {"core/detector.py", "core/nms.py", "backends/litert.py", "backends/openvino.py"} <= {
        name_of(f) for f in FILES
    }


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_is_python_3_8_and_stands_alone(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 8))
    body = [n for n in tree.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    if body:  # annotations must stay strings, because 3.8 cannot evaluate them
        assert isinstance(body[0], ast.ImportFrom) and body[0].module == "__future__", "from __future__ import first"
    depth = len(file.relative_to(ROOT).parts)
    standard = sys.stdlib_module_names
    for node in imports(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= depth, f"line {node.lineno} imports from above the package"
        assert top_level(node) <= standard | ALLOWED | LATER, f"line {node.lineno} imports what devices lack"
    for node in imports(tree, nested=False):
        assert top_level(node) <= standard | ALLOWED, f"line {node.lineno} must be imported inside a function"


def test_grammar_and_standard_library_of_python_3_8() -> None:
    """Vermin knows which release brought which function, which parsing alone does not tell."""
    if importlib.util.find_spec("vermin") is None:
        pytest.skip("needs vermin")
    entry = "import sys, vermin; sys.exit(vermin.main())"
    command = [sys.executable, "-c", entry, "-t=3.8-", "--violations", "--no-tips", str(ROOT)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_imports_nothing_but_numpy_and_opencv(copied: Path) -> None:
    modules = [name_of(f)[:-3].replace("/", ".").replace(".__init__", "") for f in FILES]
    modules = [m for m in modules if m not in {"__init__", "__main__"}]
    script = f"""
import importlib, sys
sys.path.insert(0, {str(copied)!r})
import numpy, cv2
known = set(sys.modules)
for name in {modules!r}:
    importlib.import_module("yoloquant_runtime." + name)
new = {{m.split(".")[0] for m in set(sys.modules) - known if not m.startswith("__")}}
new -= set(sys.stdlib_module_names) | {{"yoloquant_runtime"}}
assert not new, new
"""
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=copied)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_loads_neither_numpy_nor_opencv(copied: Path) -> None:
    script = "import sys, yoloquant_runtime; assert not {'numpy', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=copied)
