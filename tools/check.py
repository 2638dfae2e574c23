"""The one check for people and for CI: formatter, linter, types, imports, dead code, names, documentation.

Fixes nothing; ``--fix`` does what can be done by itself. ``--fast`` leaves out types and documentation.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = ["yoloquant", "datasets", "tools", "tests", "examples"]


def main() -> int:
    """Run every checker and return 1 if one of them complains."""
    fix, fast = "--fix" in sys.argv, "--fast" in sys.argv
    # one after the other, since both may write
    failed = _failing([_module("ruff", "format", *([] if fix else ["--check"]), *PLACES)])
    failed += _failing([_module("ruff", "check", *(["--fix"] if fix else []), *PLACES)])
    # import-linter has no __main__: its command lies beside the interpreter
    others = [_module("vulture"), [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]]
    if not fast:
        # the longest first
        others.insert(0, _module("mypy"))
        if importlib.util.find_spec("mkdocs") is not None:
            others.insert(1, _module("mkdocs", "build", "--strict", "--quiet", "--site-dir", "build/site"))
    failed += _failing(others) + _names() + _classes() + _imports() + _places()
    for what in failed:
        print(f"failed: {what}", file=sys.stderr)
    return int(bool(failed))


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _failing(commands: Iterable[list[str]]) -> list[str]:
    """Run commands beside each other, print what each says as one piece, and return those that complain."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = {pool.submit(_run, command): " ".join(command) for command in commands}
        failed = []
        for each in as_completed(done):
            code, said = each.result()
            print(f"+ {done[each]}\n{said}", end="", flush=True)
            if code:
                failed.append(done[each])
    return failed


def _run(command: list[str]) -> tuple[int, str]:
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement of the theme's makers
    found = subprocess.run(command, cwd=ROOT, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return found.returncode, found.stdout


def _names() -> list[str]:
    """Say where the public names of the package are not the same in its three lists."""
    tree = ast.parse((ROOT / "yoloquant" / "__init__.py").read_text(encoding="utf-8"))
    lists: dict[str, set[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name == "__all__":
                lists["__all__"] = set(ast.literal_eval(node.value)) - {"__version__"}
            elif name == "_WHERE":
                lists["_WHERE"] = set(ast.literal_eval(node.value))
        elif isinstance(node, ast.If):
            imports = [n for n in node.body if isinstance(n, ast.ImportFrom)]
            lists["TYPE_CHECKING"] = {a.asname or a.name for n in imports for a in n.names}
    everything = set().union(*lists.values())
    return [
        f"yoloquant/__init__.py: {', '.join(sorted(everything - names))} missing in {where}"
        for where, names in lists.items()
        if names != everything
    ]


def _classes() -> list[str]:
    """Say which name is the name of two classes."""
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / "yoloquant").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    return [f"class {name} is in {' and in '.join(where)}" for name, where in places.items() if len(where) > 1]


def _imports() -> list[str]:
    """Say which tests, tools and examples import what the package does not hold; mypy reads the package alone."""
    missing = []
    for path in sorted(p for place in ("tests", "tools", "examples") for p in (ROOT / place).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("yoloquant."):
                known = _defined(str(node.module))
                names = [a.name for a in node.names if known is None or a.name not in known]
                missing += [f"{path.relative_to(ROOT)}: {node.module} has no {name}" for name in names]
    return missing


def _places() -> list[str]:
    """Say which files and folders the architecture's page tells of that are not there; it starts in the package."""
    page = ROOT / "docs" / "architecture.md"
    # links and plain text are mkdocs' business
    told = re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)*(?:/|\.py))`", page.read_text(encoding="utf-8"))
    package = {f.relative_to(ROOT / "yoloquant").as_posix() for f in (ROOT / "yoloquant").rglob("*.py")}
    found = package | {f.relative_to(ROOT).as_posix() for f in (ROOT / "tools").rglob("*.py")}
    folders = {str(Path(name).parent) for name in found}
    missing = [n for n in told if n not in found and n.rstrip("/") not in folders and not _beside(n, told, found)]
    return [f"docs/architecture.md: there is no {name}" for name in missing]


def _beside(name: str, told: Iterable[str], found: Iterable[str]) -> bool:
    """Whether a bare name is that of a file beside another one that is told of, as in "drawn by ..."."""
    return "/" not in name and any(f"{Path(other).parent}/{name}" in found for other in told)


@cache
def _defined(module: str) -> frozenset[str] | None:
    """Names that a module of the package defines or imports, and modules in it; None if there is no such module."""
    place = ROOT.joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return None
    found = {p.stem for p in place.iterdir()} if place.is_dir() else set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update(a.asname or a.name for a in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return frozenset(found)


if __name__ == "__main__":
    sys.exit(main())
