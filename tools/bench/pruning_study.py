"""A study over pruning by ``yoloquant tune``, and what it chose against today's defaults on the scored split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.bench.table import table
from yoloquant import api
from yoloquant.bridge.checkpoint import load_model
from yoloquant.cli.main import main as command
from yoloquant.cli.parser import values_of
from yoloquant.errors import UsageError
from yoloquant.evaluation.results import TargetResult
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.io import parse_yaml, write_text
from yoloquant.pipeline import run
from yoloquant.pruning.metadata import pruned_fraction
from yoloquant.recipe import make_recipe
from yoloquant.tuning.recipe_keys import find_key
from yoloquant.tuning.space import make_space

SEARCHED = {
    "prune": "0.5..0.68",
    "prune.criterion": "taylor|l2|bn",
    "prune.lr": "log:5e-4..5e-3",
    "prune.batch": "8|16",
    "prune.warmup_epochs": "0|3",
    "scheme": "auto|portable",
}
FIXED = {"images": "32", "prune.workers": "0", "prune.plots": "false"}
CHOSEN, DEFAULT, VARIED = "chosen", "default", "varied"


def search(model: Path, options: Mapping[str, str], folder: Path) -> None:
    """Run the study as the command does: it chooses the smallest model that loses no more than today's defaults."""
    names = ("data", "targets", "imgsz", "trials", "held_back", "few", "again", "hours")
    given = {**{name: options[name] for name in names}, **SEARCHED, **FIXED, "prune.epochs": options["epochs"]}
    limited = {"objective": "multiplications,map_drop", "default_drop": "true"}
    more = {**limited, "confirm": "false", "output": str(folder)}
    words = ["tune", f"model={model}", *(f"{k}={v}" for k, v in {**given, **more}.items())]
    print("yoloquant " + " ".join(words), flush=True)
    if command(words) != 0:
        raise SystemExit(1)
    print(_table_of_trials(json.loads((folder / "trials.json").read_text(encoding="utf-8"))))


def _table_of_trials(trials: Sequence[Mapping[str, Any]]) -> str:
    names = list(trials[0]["values"])
    rows = [
        [
            f"{t['stage']} {t['number']}" + (", default" if t["default"] else ""),
            *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in (t["values"].get(n) for n in names)),
            *(f"{100 * t['scores'][s]:.2f}" if t["scores"] else t["state"] for s in ("map_drop",)),
            f"{t['scores']['multiplications'] / 1e6:.0f}" if t["scores"] else "",
            f"{t['seconds']:.0f}" if t["seconds"] else "",
        ]
        for t in trials
    ]
    return table(["trial", *(n.rpartition(".")[2] for n in names), "drop, points", "million", "s"], rows)


def confirm(model: Path, options: Mapping[str, str], folder: Path) -> None:
    """Run recipes whole on all data, score each once on the scored split, and print what is there."""
    for word in options["runs"].split(","):
        which, _, seed = word.partition(":")
        if which not in (CHOSEN, DEFAULT, VARIED) or not seed.isdigit():
            raise SystemExit(f"runs={word} is not known; give {CHOSEN}:<seed>, {DEFAULT}:<seed> or {VARIED}:<seed>")
        path = folder / f"{_label(which, options)}-{seed}.json"
        if not path.is_file():
            write_text(path, json.dumps(_confirmed(model, options, folder, which, int(seed))))
    kept = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*-*.json"))}
    head = ["recipe, seed", "multiplications gone", "FP32: drop, points", *(f"INT8, {options['targets']}: drop",)]
    rows = [[", ".join(name.rsplit("-", 1)), f"{k['gone']:.1%}", k["float"], k["int8"]] for name, k in kept.items()]
    print(table(head, rows))


def _label(which: str, options: Mapping[str, str]) -> str:
    """What a recipe's files are called; of one that is varied by what is varied, since several may be."""
    return options["varied"].replace(",", "+") if which == VARIED else which


def _confirmed(model: Path, options: Mapping[str, str], folder: Path, which: str, seed: int) -> dict[str, Any]:
    output = folder / f"{_label(which, options)}-{seed}"
    content = _content(model, options, folder, which)
    # both as long: a study may have had less time for each
    arguments = {**content["prune"]["arguments"], "seed": seed, "epochs": int(options["epochs"])}
    content["prune"] = {**content["prune"], "arguments": arguments}
    content["validation"] = {"latency": False, "memory": False}
    recipe = make_recipe({**content, "output": str(output)}, which)
    found = run(recipe)
    # beside the artifact of the run, whose results are taken again
    pruned = output / "prune" / "weights" / "best.pt"
    judged = ValidateOptions(latency=False, memory=False)
    both = api.validate(model, exports=[output, pruned], data=recipe.data, options=judged)
    gone = pruned_fraction(load_model(pruned).module)
    (integers,), (plain,) = found.validation.targets, (t for t in both.targets if t.target == pruned.name)
    return {"gone": gone, "int8": _drop(integers), "float": _drop(plain), "recipe": content}


def _content(model: Path, options: Mapping[str, str], folder: Path, which: str) -> dict[str, Any]:
    """Content of a recipe: the chosen one's file, the same without any search, or that with the values of varied=."""
    if which == CHOSEN:
        content = parse_yaml((folder / "recipe.yaml").read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content
    given = {k: options[k] for k in ("targets", "imgsz")} | SEARCHED | FIXED | {"prune.epochs": options["epochs"]}
    # as the command reads them
    space = make_space({"model": str(model), "data": options["data"]}, values_of(given))
    if space.defaults is None:
        raise UsageError("the space does not hold the defaults")
    varied = dict(word.split("=", 1) for word in options["varied"].split(",")) if which == VARIED else {}
    return space.content({**space.defaults, **{find_key(k).name: v for k, v in values_of(varied).items()}})


def _drop(found: TargetResult) -> str:
    if found.comparison is None or found.comparison.map_drop is None:
        raise SystemExit(f"{found.target} was not measured: {found.error}")
    drop = found.comparison.map_drop
    return f"{100 * drop.value:+.2f} [{100 * drop.low:+.2f}, {100 * drop.high:+.2f}]"
