"""Do two checkouts of this project build the same artifacts? What a refactoring has to prove.

    python tools/compare_builds.py old=../before model=best.pt data=coco8.yaml imgsz=320

Each checkout calibrates the model on the same images and exports it, every target in a process of its own; what is
there already is not exported again, so a comparison that was ended goes on. Files are compared byte by byte. Where they
differ, scales and zero_points are read back from both artifacts and both are run on the same random images: all of it
must be equal bit by bit. Ends with 0 if every artifact is equal, else with 1.

With ``plans=old`` the other checkout alone calibrates, and both export the file that it wrote: calibration may have
changed on purpose, and what exporting makes of one plan is compared by itself.

Options (``key=value`` or ``--key value``): old (the other checkout), new (this one), model, data (the embedded
demonstration model and its generated images, if not given), plans (each; or old), targets (all), images (16), imgsz
(320), runs (2; images that both are run on), output (runs/compare_builds; kept).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"

import numpy as np

from tools.bench.checkout import command, environment
from tools.options import parse_options
from yoloquant import targets
from yoloquant.runtime.core.runner import Runner
from yoloquant.targets.exports import FILE_NAME, load_exports
from yoloquant.types import ExportedModel

ROOT = Path(__file__).resolve().parents[1]
DEFAULTS = {
    "old": "",
    "new": str(ROOT),
    "model": "",
    "data": "",
    "plans": "each",
    "targets": "all",
    "images": "16",
    "imgsz": "320",
    "runs": "2",
    "output": "runs/compare_builds",
}
_SECONDS = 3600


@dataclass(frozen=True)
class Comparison:
    """One artifact of both checkouts.

    Attributes:
        name: Its file or folder.
        how: What is equal: ``bytes``, ``scales and outputs``, or ``nothing``, with what differs.
    """

    name: str
    how: str

    @property
    def equal(self) -> bool:
        """Whether a runtime computes the same from both."""
        return self.how in {"bytes", "scales and outputs"}


def export(checkout: Path, settings: dict[str, str], folder: Path) -> Path:
    """Let a checkout calibrate and export to every target that its folder lacks, in a process each.

    A target that the checkout does not know, or cannot build, is told and left out.
    """
    for target in [t.wanted for t in targets.resolve(settings["targets"])]:
        if target in _exported(folder):
            continue
        print(f"{folder.name}: exporting {target} ...", file=sys.stderr, flush=True)
        chosen = {**settings, "targets": target}
        # a file with plans says itself what calibrated it, and at which size
        keys = ("model", "targets") if settings["plans"] == "old" else ("model", "data", "targets", "images", "imgsz")
        _run(checkout, folder, "export", *(f"{key}={chosen[key]}" for key in keys))
    return folder


def quantize(checkout: Path, settings: dict[str, str], folder: Path) -> Path | None:
    """Let a checkout calibrate the model for every scheme that it knows.

    Returns:
        The file with its plans; None if it could not.
    """
    path = folder / f"{Path(settings['model']).stem}_int8.pt"
    if not path.is_file():
        print(f"{folder.name}: quantizing ...", file=sys.stderr, flush=True)
        _run(checkout, folder, "quantize", *(f"{key}={settings[key]}" for key in ("model", "data", "images", "imgsz")))
    return path if path.is_file() else None


def _run(checkout: Path, folder: Path, verb: str, *arguments: str) -> None:
    """Run a checkout's command, which writes to a folder; tell where it fails."""
    done = subprocess.run(
        [*command(checkout), verb, *arguments, f"output={folder}"],
        cwd=folder.parent,
        env=environment(checkout),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        print(f"{checkout} failed: {verb} {' '.join(arguments)}\n{done.stdout}{done.stderr}", file=sys.stderr)


def _exported(folder: Path) -> set[str]:
    """Targets that an export folder lists, as they are asked for."""
    if not (folder / FILE_NAME).is_file():
        return set()
    listed = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["exports"]
    return {e["target"] if (p := e.get("precision", "int8")) == "int8" else f"{e['target']}:{p}" for e in listed}


def compare(before: Path, exported: ExportedModel, runs: int) -> Comparison:
    """Compare one artifact with the file or folder that the other checkout wrote in its place."""
    other = before / exported.path.name
    if not other.exists():
        return Comparison(exported.path.name, "nothing: the old checkout did not write it")
    if _digest(other) == _digest(exported.path):
        return Comparison(exported.path.name, "bytes")
    target, old = targets.get(exported.target), replace(exported, path=other)
    scales, wanted = target.read_scales(exported), target.read_scales(old)
    if set(scales) != set(wanted):
        return Comparison(exported.path.name, f"nothing: {len(set(scales) ^ set(wanted))} points are in one of them")
    odd = [name for name in scales if not all(map(np.array_equal, scales[name], wanted[name]))]
    if odd:
        return Comparison(exported.path.name, f"nothing: {len(odd)} scales differ, first {odd[0]}")
    if not _same_outputs(target.load(old, 1), target.load(exported, 1), runs):
        return Comparison(exported.path.name, "scales alone: outputs differ")
    return Comparison(exported.path.name, "scales and outputs")


def _same_outputs(one: Runner, other: Runner, runs: int) -> bool:
    draw = np.random.default_rng(0)
    for _ in range(runs):
        coarse = draw.random((1, one.info.channels, one.info.imgsz[0] // 8, one.info.imgsz[1] // 8), np.float32)
        image = np.ascontiguousarray(coarse.repeat(8, axis=2).repeat(8, axis=3))
        if not all(map(np.array_equal, one.infer(image), other.infer(image))):
            return False
    return True


def _digest(path: Path) -> str:
    """Of a file, or of a folder's files."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _demo(settings: dict[str, str], folder: Path) -> dict[str, str]:
    from yoloquant.data.demo import IMGSZ, generator
    from yoloquant.io import resource

    data = folder / "data" / "data.yaml"
    if not data.is_file():
        data = Path(generator().write_demo_set(folder / "data", train=int(settings["images"]), val=4, imgsz=IMGSZ))
    return {**settings, "model": str(resource("datasets", "demo.pt")), "data": str(data)}


def main(arguments: Sequence[str]) -> int:
    """Export in both checkouts, compare, and print a line for every artifact."""
    settings = parse_options(arguments, DEFAULTS, str(__doc__))
    old, new, folder = Path(settings["old"]), Path(settings["new"]), Path(settings["output"]).absolute()
    if not settings["old"] or not (old / "pyproject.toml").is_file():
        print(f"old='{settings['old']}' is no checkout of this project; give old=<folder with pyproject.toml>")
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    if not settings["model"]:
        settings = _demo(settings, folder)
    settings = {**settings, "model": str(Path(settings["model"]).absolute())}
    if Path(settings["data"]).exists():
        settings["data"] = str(Path(settings["data"]).absolute())
    if settings["plans"] not in ("each", "old"):
        print(f"plans='{settings['plans']}' is unknown; allowed are each and old")
        return 2
    if settings["plans"] == "old":
        if (made := quantize(old.absolute(), settings, folder / "plans")) is None:
            return 2
        settings["model"] = str(made)
    before, after = (export(c.absolute(), settings, folder / n) for c, n in ((old, "old"), (new, "new")))
    if not _exported(after):
        return 2
    found = [compare(before, exported, int(settings["runs"])) for exported in load_exports(after)]
    for each in found:
        print(f"{each.name:<44} equal: {each.how}")
    print(f"{sum(c.equal for c in found)} of {len(found)} artifacts are equal")
    return 0 if all(c.equal for c in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
