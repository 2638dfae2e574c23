"""Feed the command hundreds of broken inputs: each must end in a known exit code and one sentence.

    python tools/fuzz_inputs.py count=320 seed=0 output=fuzz.json

Checkpoints, data yamls, labels, images, gates, export lists, manifests, bundles and files of predictions are mutated,
some in form and some in meaning (labels of other classes, weights of another model). The command runs in this process,
and so does a bundle's own. A case is right if it

- ends in 0 (pass), 1 (a gate failed), 2 (bad input), 3 (inconclusive) or 4 (could not be run), never in an exception;
- prints no traceback, and exactly one line ``error: ...`` where it ends in 2 or 4;
- ends in 1 only where FAIL is printed as the verdict, and never in 0 where the meaning was changed.

Everything is drawn from the seed, so a case is repeated with ``only=<number>``, and ``first=160 count=160`` is the
second half of 320. ``work=<folder>`` keeps the healthy inputs and the cases that were right (of one seed), so that a
run that was ended goes on.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.options import parse_options

DEFAULTS = {"count": "320", "first": "0", "seed": "0", "output": "", "only": "", "kinds": "", "work": ""}
CODES = frozenset({0, 1, 2, 3, 4})
IMGSZ = 96
IMAGES = 10
GATE = """\
format: 1
name: fuzz
limits: {fidelity: 0.5, map_drop: {limit: 0.25, rule: veto}}
min_images: 5
min_detections: 5
"""
"""Healthy inputs pass it, few as the images are: else no false pass could be seen."""


@dataclass(frozen=True)
class Case:
    """One mutated input.

    Attributes:
        number: Its number; with the seed it makes the same input again.
        kind: What was mutated.
        what: How.
        meaning: Whether a pass would be wrong.
        arguments: The command.
    """

    number: int
    kind: str
    what: str
    meaning: bool
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        case: The case.
        code: Exit code; None for an exception.
        sentence: What was printed about it.
        wrong: What is wrong with that; empty if nothing.
        seconds: How long it took.
    """

    case: Case
    code: int | None
    sentence: str
    wrong: str
    seconds: float


@dataclass(frozen=True)
class Workshop:
    """Healthy inputs.

    Attributes:
        root: Folder with ``model.pt``, ``set/`` and ``exports/``.
    """

    root: Path

    @property
    def model(self) -> Path:
        """The checkpoint."""
        return self.root / "model.pt"

    @property
    def data(self) -> Path:
        """The data yaml."""
        return self.root / "set" / "data.yaml"

    @property
    def exports(self) -> Path:
        """The export folder."""
        return self.root / "exports"

    @property
    def bundle(self) -> Path:
        """The bundle."""
        return self.root / "bundle"

    @property
    def predictions(self) -> Path:
        """COCO results of the artifact on the images that are scored."""
        return self.root / "found.json"


def prepare(root: Path) -> Workshop:
    """Make a small data set, a copy of the demo model, its export, a bundle and its results on the scored images."""
    from yoloquant.data import demo
    from yoloquant.io import resource

    shop = Workshop(root)
    drawn = demo.generator().write_demo_set(root / "drawn", train=IMAGES, val=IMAGES, imgsz=IMGSZ)
    shutil.copytree(drawn.parent, root / "set")
    names = list(demo.generator().CLASS_NAMES)
    shop.data.write_text(f"path: {root / 'set'}\ntrain: images/train\nval: images/val\nnames: {json.dumps(names)}\n")
    shutil.copy(resource("datasets", "demo.pt"), shop.model)
    quantized = root / "model_int8.pt"
    quantize = ["quantize", f"model={shop.model}", f"data={shop.data}", f"imgsz={IMGSZ}", "images=8", "scheme=portable"]
    export = ["export", f"model={quantized}", "targets=onnxruntime"]
    bundled = [*export, f"output={root / 'bundles'}", "bundle=true", f"data={shop.data}", "limit=4"]
    for arguments in (quantize, [*export, f"output={shop.exports}"], bundled):
        _made(arguments)
    made = next((root / "bundles").rglob("manifest.json")).parent
    shutil.copytree(made, shop.bundle)
    shutil.rmtree(root / "bundles")
    scored = f"source={root / 'set' / 'images' / 'val'}"
    _made(["predict", f"model={shop.bundle}", scored, f"output={shop.predictions}", "multi_label=true", "conf=0.001"])
    (root / "gate.yaml").write_text(GATE)
    (root / "manifest.json").write_text(json.dumps(_manifest(shop)))
    return shop


def _made(arguments: Sequence[str]) -> None:
    """Run the command, which must succeed."""
    code, text = run_command(arguments)
    if code != 0:
        raise SystemExit(f"the healthy inputs could not be made: {' '.join(arguments)} ended in {code}\n{text[-2000:]}")


def _manifest(shop: Workshop) -> dict[str, Any]:
    from yoloquant.data.dataset import ValidationSet
    from yoloquant.runtime.core.folder_check import file_sha256

    images = [
        {"file": i.path.name, "sha256": file_sha256(i.path), "boxes": len(i.classes)}
        for i in ValidationSet.from_yaml(shop.data).images
    ]
    return {"format": 1, "name": "fuzz", "images": images}


# -- mutations of bytes, text and trees


def _bytes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Damage bytes."""
    way = rng.choice(("truncated", "flipped", "emptied", "replaced", "doubled", "zeroed"))
    if way == "truncated":
        return content[: rng.randrange(len(content))], way
    if way == "flipped":
        changed = bytearray(content)
        for _ in range(rng.choice((1, 8, 64))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed), way
    if way == "zeroed":
        start = rng.randrange(len(content))
        return content[:start] + b"\0" * min(64, len(content) - start) + content[start + 64 :], way
    return {"emptied": b"", "replaced": b"404: not found\n", "doubled": content * 2}[way], way


RUNTIME = "@runtime"
"""In front of arguments that a bundle's own command is given."""
ODD_VALUES: tuple[Any, ...] = (
    None, -1, 0, 1e308, float("nan"), float("inf"), "", "x" * 3000, "../../etc/passwd", [], {}, [[]], {"a": {"b": []}},
    True, "92", 92, 2, -0.5, "\x00", "ünïcode", [1, "a", None], {"limit": "a lot"},
)  # fmt: skip


def _tree(rng: random.Random, tree: Any) -> tuple[Any, str]:
    """Change one place in nested lists and dictionaries."""
    tree = json.loads(json.dumps(tree))
    places = _places(tree)
    holder, key = rng.choice(places)
    way = rng.choice(("value", "value", "removed", "renamed", "added"))
    if way == "removed":
        del holder[key]
    elif way == "renamed" and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif way == "added" and isinstance(holder, dict):
        holder["surprise"] = rng.choice(ODD_VALUES)
    else:
        way, holder[key] = "value", rng.choice(ODD_VALUES)
    return tree, f"{way} at {key!r}"


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items:
        found.append((tree, key))
        found += _places(value)
    return found


# -- one function for each kind of input: mutates a copy, and says what to run


def _validate(shop: Workshop, **changes: Any) -> tuple[str, ...]:
    values = {
        "model": shop.model, "exports": shop.exports, "data": shop.data, "gate": shop.root / "gate.yaml",
        "latency": "false", "memory": "false", "bootstrap": 100, **changes,
    }  # fmt: skip
    return ("validate", *(f"{key}={value}" for key, value in values.items() if value is not None))


def _checkpoint(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    way = rng.choice(("bytes", "bytes", "bytes", "names", "content", "entry", "suffix"))
    path, content = shop.model, shop.model.read_bytes()
    if way == "bytes":
        changed, what = _bytes(rng, content)
        path.write_bytes(changed)
    elif way == "suffix":
        what, path = "suffix", path.rename(path.with_suffix(rng.choice((".onnx", ".PT2", ".yaml", ""))))
    elif way in {"names", "entry"}:
        what = _archive(rng, path, way)
    else:
        import torch

        value = rng.choice(([1], {}, {"model": None}, {"model": {"a": 1}}, "text", {"ema": [2]}, torch.zeros(2)))
        torch.save(value, path)
        what = f"holds {str(value)[:30]}"
    return what, False, ("plan", f"model={path}", f"imgsz={IMGSZ}", f"output={shop.root / 'plan.json'}")


def _archive(rng: random.Random, path: Path, way: str) -> str:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    if way == "entry":
        name = rng.choice(sorted(entries))
        del entries[name]
        what = f"without {Path(name).name}"
    else:
        name = next(n for n in entries if n.endswith("data.pkl"))
        old = rng.choice((b"DetectionModel", b"ultralytics.nn.tasks", b"Conv\n", b"_rebuild_tensor_v2", b"OrderedDict"))
        new = rng.choice((b"system", b"WorldModel", b"models.yolo", b"posix", b"eval\n", b"Nothing"))
        entries[name] = entries[name].replace(old, new)
        what = f"{old!r} called {new!r}"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return what


def _yaml(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    import yaml

    way = rng.choice(("bytes", "tree", "tree", "tree", "order", "bomb", "text"))
    content = shop.data.read_bytes()
    meaning = False
    if way == "bytes":
        changed, what = _bytes(rng, content)
        shop.data.write_bytes(changed)
    elif way == "tree":
        tree, what = _tree(rng, yaml.safe_load(content))
        shop.data.write_text(yaml.safe_dump(tree, allow_unicode=True))
    elif way == "order":
        tree = yaml.safe_load(content)
        tree["names"] = [f"other {i}" for i in range(len(tree["names"]))]
        shop.data.write_text(yaml.safe_dump(tree))
        what, meaning = "other names", True
    elif way == "bomb":
        lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 12)), "names: *a11"]
        shop.data.write_text("\n".join(lines))
        what = "aliases of aliases"
    else:
        shop.data.write_text(
            rng.choice(("\t- x: [", "names: !!python/object/apply:os.system ['true']", "42", "- a\n- b"))
        )
        what = "odd text"
    return what, meaning, _validate(shop)


def _labels(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    files = sorted((shop.root / "set" / "labels" / "val").glob("*.txt"))
    path = rng.choice([f for f in files if f.stat().st_size])
    lines = path.read_text().splitlines()
    way = rng.choice(("bytes", "word", "word", "column", "shift", "classes", "folder"))
    meaning = False
    if way == "bytes":
        changed, what = _bytes(rng, path.read_bytes())
        path.write_bytes(changed)
    elif way == "word":
        words = lines[0].split()
        index, word = (
            rng.randrange(len(words)),
            rng.choice(("nan", "inf", "-3", "99", "0.5e400", "x", "\uff11", "1,5", "--")),
        )
        words[index] = word
        path.write_text("\n".join([" ".join(words), *lines[1:]]))
        what = f"column {index} is {word}"
    elif way == "column":
        path.write_text("\n".join([lines[0] + " 0.1" * rng.choice((1, 2, 3)), *lines[1:]]))
        what = "more columns"
    elif way == "folder":
        shutil.rmtree(path.parent)
        what, meaning = "no label folder", True
    else:
        for file in files:
            rows = [line.split() for line in file.read_text().splitlines()]
            for row in rows:
                if way == "classes":
                    row[0] = str((int(row[0]) + 1) % 6)
                else:
                    row[1] = f"{(float(row[1]) + 0.4) % 1:.6f}"
            file.write_text("".join(" ".join(row) + "\n" for row in rows))
        what, meaning = f"all {way}", True
    return what, meaning, _validate(shop)


def _images(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    split = rng.choice(("val", "val", "train"))
    path = rng.choice(sorted((shop.root / "set" / "images" / split).glob("*.png")))
    way = rng.choice(("bytes", "bytes", "tiny", "folder", "jpeg"))
    if way == "bytes":
        changed, what = _bytes(rng, path.read_bytes())
        path.write_bytes(changed)
    elif way == "folder":
        path.unlink()
        path.mkdir()
        what = "a folder"
    else:
        import cv2
        import numpy as np

        side = 4 if way == "tiny" else IMGSZ
        _, coded = cv2.imencode(".jpg", np.full((side, side, 3), 90, np.uint8))
        cut = len(coded) if way == "tiny" else rng.randrange(20, len(coded))
        path.write_bytes(coded.tobytes()[:cut])
        what = f"{way} JPEG"
    if split == "train":
        calibrate = ("quantize", f"model={shop.model}", f"data={shop.data}", f"imgsz={IMGSZ}", "images=8")
        return f"train, {what}", False, (*calibrate, "scheme=portable", f"output={shop.root}")
    return what, False, _validate(shop)


def _gate(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    import yaml

    path = shop.root / "gate.yaml"
    if rng.random() < 0.25:
        changed, what = _bytes(rng, path.read_bytes())
        path.write_bytes(changed)
        return what, False, _validate(shop)
    if rng.random() < 0.3:
        limit = rng.choice(({"fidelity": 92}, {"map_drop": 2}, {"fidelity": -1}, {"map_drop": -5}, {"fidelity": 1.5}))
        path.write_text(yaml.safe_dump({"format": 1, "name": "fuzz", "limits": limit}))
        return f"limits {limit}", "fidelity" in limit or "map_drop" in limit, _validate(shop)
    tree, what = _tree(rng, yaml.safe_load(path.read_text()))
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return what, False, _validate(shop)


def _exports(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    listing = shop.exports / "exports.json"
    way = rng.choice(("bytes", "tree", "tree", "tree", "artifact", "missing"))
    if way == "bytes":
        changed, what = _bytes(rng, listing.read_bytes())
        listing.write_bytes(changed)
        return what, False, _validate(shop)
    if way == "tree":
        tree, what = _tree(rng, json.loads(listing.read_text()))
        listing.write_text(json.dumps(tree))
        return what, False, _validate(shop)
    artifact = next(p for p in shop.exports.iterdir() if p.suffix == ".onnx")
    if way == "missing":
        artifact.unlink()
        return "artifact missing", True, _validate(shop)
    changed, what = _bytes(rng, artifact.read_bytes())
    artifact.write_bytes(changed)
    return f"artifact {what}", True, _validate(shop)


def _manifests(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    path = shop.root / "manifest.json"
    meaning = False
    if rng.random() < 0.3:
        changed, what = _bytes(rng, path.read_bytes())
        path.write_bytes(changed)
    elif rng.random() < 0.3:
        tree = json.loads(path.read_text())
        tree["images"][0]["sha256"] = "0" * 64
        path.write_text(json.dumps(tree))
        what, meaning = "another image", True
    else:
        tree, what = _tree(rng, json.loads(path.read_text()))
        path.write_text(json.dumps(tree))
    return what, meaning, _validate(shop, manifest=path)


def _other(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    """The checkpoint of another model under the model's name."""
    import torch

    from yoloquant.bridge.checkpoint import load_model
    from yoloquant.bridge.host_model import ORIGIN
    from yoloquant.quantization.artifact import save_checkpoint

    module: Any = copy.deepcopy(load_model(shop.model).module)
    if hasattr(module, ORIGIN):
        delattr(module, ORIGIN)
    way = rng.choice(("trained on", "names", "one channel", "one class", "NaN", "size"))
    first, head = module.model[0].conv, module.model[-1]
    if way == "trained on":
        for parameter in module.parameters():
            parameter.data += 0.01 * parameter.data.std(correction=0) * torch.randn(parameter.shape)
    elif way == "names":
        names = list(module.names.values())
        rng.shuffle(names)
        module.names = dict(enumerate([*names[1:], "zebra"]))
    elif way == "one channel":
        first.weight, first.in_channels = torch.nn.Parameter(first.weight.sum(1, keepdim=True)), 1
    elif way == "one class":
        for branch in head.cv3:
            last = branch[-1]
            last.weight, last.bias = torch.nn.Parameter(last.weight[:1]), torch.nn.Parameter(last.bias[:1])
            last.out_channels = 1
        vars(head).update(nc=1, no=4 * head.reg_max + 1)
        vars(module).update(nc=1, names={0: "thing"})
    elif way == "NaN":
        first.weight.data[0] = rng.choice((float("nan"), float("inf"), 1e38))
    else:
        first.weight = torch.nn.Parameter(first.weight[:-1])
    save_checkpoint(shop.model, module, {"imgsz": IMGSZ, "task": "detect"})
    calibrate = ("quantize", f"model={shop.model}", f"data={shop.data}", "images=8", f"imgsz={IMGSZ}")
    if way not in ("names", "trained on") and rng.random() < 0.4:
        return f"{way}, calibrated", way != "one class", (*calibrate, "scheme=portable", f"output={shop.root}")
    return way, True, _validate(shop)


def _bundle(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    from yoloquant.runtime.core.bundle_manifest import _canonical, _fingerprint

    path = shop.bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    way = rng.choice(("bytes", "tree", "signed", "signed", "signed", "file", "file", "missing", "more"))
    meaning = True
    if way == "bytes":
        changed, what = _bytes(rng, path.read_bytes())
        path.write_bytes(changed)
    elif way in {"tree", "signed"}:
        tree, what = _tree(rng, manifest)
        what, meaning = f"{what}, {way}", way == "tree" and tree != manifest
        try:
            path.write_text(_canonical({**tree, "id": _fingerprint(tree)} if way == "signed" else tree))
        except ValueError:  # NaN has no place in a manifest
            path.write_text(json.dumps(tree))
    else:
        file = shop.bundle / rng.choice(sorted(manifest["files"]))
        if way == "file":
            changed, what = _bytes(rng, file.read_bytes() or b" ")
            file.write_bytes(changed)
            what = f"{file.name} {what}"
        elif way == "missing":
            file.unlink()
            what = f"without {file.name}"
        else:
            name = rng.choice(("json.py", "numpy.py", "yoloquant_runtime/extra.py", "sitecustomize.py"))
            (shop.bundle / name).write_text("raise SystemExit(0)\n")
            what = f"with {name}"
    return what, meaning, (RUNTIME, "verify", f"bundle={shop.bundle}", "threads=1")


def _predictions(rng: random.Random, shop: Workshop) -> tuple[str, bool, tuple[str, ...]]:
    path = shop.predictions
    rows = json.loads(path.read_text())
    way = rng.choice(("bytes", "tree", "tree", "classes", "normalised", "images", "corners", "percent"))
    meaning = way not in {"bytes", "tree"}
    if way == "bytes":
        changed, what = _bytes(rng, path.read_bytes())
        path.write_bytes(changed)
    else:
        what = f"all {way}"
        if way == "tree":
            few, what = _tree(rng, rows[:3])
            rows = [*few, *rows[3:]] if isinstance(few, list) else few
        for row in rows if meaning else ():
            x, y, w, h = row["bbox"]
            if way == "classes":
                row["category_id"] = (row["category_id"] + 1) % 6
            elif way == "normalised":
                row["bbox"] = [v / IMGSZ for v in row["bbox"]]
            elif way == "corners":
                row["bbox"] = [x, y, x + w, y + h]
            elif way == "percent":
                row["score"] *= 100
            else:
                row["image_id"] = f"other_{row['image_id']}"
        path.write_text(json.dumps(rows))
    return what, meaning, _validate(shop, exports=None, predictions=path)


KINDS: dict[str, Callable[[random.Random, Workshop], tuple[str, bool, tuple[str, ...]]]] = {
    "checkpoint": _checkpoint,
    "yaml": _yaml,
    "labels": _labels,
    "images": _images,
    "gate": _gate,
    "exports": _exports,
    "manifest": _manifests,
    "other": _other,
    "bundle": _bundle,
    "predictions": _predictions,
}


# -- running


def run_case(number: int, seed: int, healthy: Path, work: Path, kinds: Sequence[str]) -> Outcome:
    """Mutate a copy of the healthy inputs and run the command on it."""
    rng = random.Random(f"{seed}:{number}")
    kind = kinds[number % len(kinds)]
    folder = work / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(healthy, folder, ignore=shutil.ignore_patterns("drawn"))
    shop = Workshop(folder)
    shop.data.write_text(shop.data.read_text().replace(str(healthy), str(folder)))
    what, meaning, arguments = KINDS[kind](rng, shop)
    case = Case(number, kind, what, meaning, arguments)
    start = time.perf_counter()
    code, text = run_command(arguments)
    return Outcome(case, code, _sentence(text), judge(case, code, text), time.perf_counter() - start)


def run_command(arguments: Sequence[str]) -> tuple[int | None, str]:
    """The command's exit code, None for an exception, and all that it printed."""
    from yoloquant.cli.main import main
    from yoloquant.runtime.__main__ import main as runtime_main

    call = (lambda: runtime_main(list(arguments[1:]))) if arguments[0] == RUNTIME else (lambda: main(list(arguments)))
    printed = io.StringIO()
    log = logging.StreamHandler(printed)
    logging.getLogger().addHandler(log)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code: int | None = call()
    except BaseException:  # whatever leaves the command is what is looked for
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):
            raise
        code = None
        printed.write(traceback.format_exc())
    finally:
        logging.getLogger().removeHandler(log)
    return code, printed.getvalue()


def _sentence(text: str) -> str:
    lines = [
        line
        for line in text.splitlines()
        if line.startswith(("error:", "verdict:", "FAIL after", "PASS after", "INCONC"))
    ] or text.splitlines()[-1:]
    return lines[-1] if lines else ""


def judge(case: Case, code: int | None, text: str) -> str:
    """What is wrong with how a case ended; empty if nothing."""
    errors = [line for line in text.splitlines() if line.startswith("error:")]
    if code is None:
        return "an exception left the command"
    if code not in CODES:
        return f"exit code {code}"
    if "Traceback (most recent call last)" in text:
        return "a traceback"
    if code in {2, 4} and len(errors) != 1 and not (code == 4 and "error" in text):
        return f"{len(errors)} error lines"
    if code == 1 and "verdict: FAIL" not in text and "FAIL after" not in text:
        return "exit code 1 without a failed gate"
    if code == 0 and case.meaning:
        return "a pass, though the meaning was changed"
    return ""


def _known(work: str) -> dict[int, Outcome]:
    """Cases that were right in a run that was ended."""
    path = Path(work) / "right.jsonl"
    if not work or not path.is_file():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        case = Case(**{**values.pop("case")})
        found[case.number] = Outcome(case, **values)
    return found


def _keep(work: str, outcome: Outcome) -> None:
    with (Path(work) / "right.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(outcome)) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; 0 if every case is right, else 1."""
    from tools.verdicts.remembered import remembered_traces

    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, __doc__ or "")
    kinds = [k for k in options["kinds"].split(",") if k] or list(KINDS)
    first = int(options["first"])
    numbers = [int(options["only"])] if options["only"] else range(first, first + int(options["count"]))
    outcomes: list[Outcome] = []
    known = _known(options["work"])
    with tempfile.TemporaryDirectory(prefix="yoloquant-fuzz-") as name, remembered_traces():
        healthy = Path(options["work"] or name).resolve() / "healthy"
        if not (healthy / "manifest.json").is_file():
            shutil.rmtree(healthy, ignore_errors=True)
            healthy.mkdir(parents=True)
            prepare(healthy)
        for number in numbers:
            outcome = known.get(number) or run_case(number, int(options["seed"]), healthy, Path(name), kinds)
            outcomes.append(outcome)
            if options["work"] and number not in known and not outcome.wrong:
                _keep(options["work"], outcome)
            if outcome.wrong or options["only"]:
                print(f"{number} {outcome.case.kind}: {outcome.case.what}: {outcome.wrong or outcome.code}")
                print(f"   {outcome.sentence[:400]}", flush=True)
    if options["output"]:
        rows = [asdict(outcome) for outcome in outcomes]
        Path(options["output"]).write_text(json.dumps(rows, indent=1))
    codes = Counter(str(o.code) for o in outcomes)
    wrong = sum(bool(o.wrong) for o in outcomes)
    print(f"{len(outcomes)} inputs, exit codes {dict(sorted(codes.items()))}, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
