"""``yoloquant tune``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...bridge.checkpoint import check_path
from ...bridge.data_file import check_data_file
from ...errors import UsageError
from ...options import TextOrNone, option, option_model
from ...recipe import Recipe
from ...tuning.tune_options import TuneOptions
from ..checking import Listed
from ..parser import Call
from ..show import Console, print_validation
from ..verdict_code import VerdictCode


@option_model
class TuneCall:
    """The recipe, and what a script is told."""

    recipe: TextOrNone = option(
        default=None, help="recipe (yaml), whose values may be ranges and choices; arguments override what it says"
    )


PARTS = (TuneCall, VerdictCode, TuneOptions, Listed(Recipe))


def _with_recipe(call: Call, own: TuneCall) -> tuple[Call, TuneCall]:
    """A bare first word that is a recipe's file, taken as one: ``tune tune.yaml``."""
    # a checkpoint is no yaml, so the two cannot be confused
    word = call.given.get("model", "")
    if own.recipe is not None or not word.endswith((".yaml", ".yml")):
        return call, own
    given = {key: text for key, text in call.given.items() if key != "model"}
    return replace(call, given=given), replace(own, recipe=word)


def run(call: Call) -> int:
    """Search, and say what was chosen; the exit code is that of its validation."""
    from ... import api
    from ...evaluation.gate import exit_code
    from ...options import flatten

    own, options = call[TuneCall], call[TuneOptions]
    call, own = _with_recipe(call, own)
    if own.recipe is None and not (call.given.get("model") and call.given.get("data")):
        raise UsageError("a study needs model=<checkpoint> and data=<data yaml>, or a recipe that names them")
    # before PyTorch is imported, which takes seconds; a recipe's own are read with it
    if call.given.get("model"):
        check_path(Path(call.given["model"]))
    if call.given.get("data"):
        check_data_file(call.given["data"])
    # the rest belongs to the recipe, whose values may be ranges: nothing here can check them
    theirs = {*flatten(TuneCall), *flatten(VerdictCode), *flatten(TuneOptions)}
    given = {key: text for key, text in call.given.items() if key not in theirs}
    result = api.tune(own.recipe, options=options, listener=Console(), **given, **call.extra)
    print(result.summary())
    print(f"page:    {result.folder / 'tune.html'}")
    print(f"recipe:  {result.recipe}")
    if result.run is None:
        print(f"next: yoloquant run {result.recipe}")
        return 0
    print_validation(result.run.validation, result.run.folder / "report")
    return exit_code(result.run.validation, call[VerdictCode].inconclusive)
