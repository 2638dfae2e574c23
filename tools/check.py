"""The one check for people and for CI: formatter, linter, types, import contract, dead code, names, documentation.

Fixes nothing; ``--fix`` does what can be done by itself. ``--fast`` leaves out types and documentation.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = ["yoloquant", "datasets", "tools", "tests", "examples"]


def main() -> int:
    """Run every checker and return 1 if one of them complains."""
    fix, fast = "--fix" in sys.argv, "--fast" in sys.argv
    commands = [
        ["ruff", "format", *([] if fix else ["--check"]), *PLACES],
        ["ruff", "check", *(["--fix"] if fix else []), *PLACES],
        ["vulture"],
    ]
    if not fast:
        commands.append(["mypy"])
        if importlib.util.find_spec("mkdocs") is not None:
            commands.append(["mkdocs", "build", "--strict", "--quiet", "--site-dir", "build/site"])
    failed = [" ".join(c) for c in commands if not _passes([sys.executable, "-m", *c])]
    # import-linter has no __main__: its command lies beside the interpreter
    if not _passes([str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]):
        failed.append("lint-imports")
    failed += _names() + _classes()
    for what in failed:
        print(f"failed: {what}", file=sys.stderr)
    return int(bool(failed))


def _passes(command: list[str]) -> bool:
    print("+", " ".join(command), flush=True)
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement of the theme's makers
    return subprocess.call(command, cwd=ROOT, env=quiet) == 0


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


if __name__ == "__main__":
    sys.exit(main())
