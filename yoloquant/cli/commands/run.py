"""``yoloquant run``."""

from __future__ import annotations

from pathlib import Path

from ...bridge.checkpoint import check_path
from ...bridge.data_file import check_data_file
from ...errors import UsageError
from ...options import TextOrNone, flatten, option, option_model
from ...recipe import Recipe, as_recipe
from ..checking import Listed
from ..parser import Call
from ..show import Console, print_validation
from ..verdict_code import VerdictCode


@option_model
class RunCall:
    """The recipe, and what a script is told."""

    recipe: TextOrNone = option(default=None, help="recipe (yaml), whose values arguments override; or the model (.pt)")


PARTS = (RunCall, VerdictCode, Listed(Recipe))


def run(call: Call) -> int:
    """Do what the recipe and the arguments say."""
    path, given = call[RunCall].recipe, dict(call.given)
    # as every other verb takes it; no recipe ends so
    if path and Path(path).suffix == ".pt":
        if "model" in given:
            raise UsageError(f"two models are given, '{path}' and model={given['model']}; leave one out")
        given["model"], path = path, None
    # said here: as a recipe's own error it would speak of keys, which nobody wrote
    if path is None and not (given.get("model") and given.get("data")):
        raise UsageError("a run needs model=<checkpoint> and data=<data yaml>, or a recipe that names them")
    if "data" in given:
        check_data_file(given["data"])
    recipe = as_recipe(path, {k: v for k, v in given.items() if k not in {"recipe", *flatten(VerdictCode)}})
    # after the recipe is read, since it may say train: itself
    if recipe.train is not None:
        call.refuse(
            ("scheme",), "with train= the scheme that is trained counts: train: {qat: {scheme: ...}} in a recipe"
        )
    # a recipe's own too; before PyTorch is imported, which takes seconds
    check_path(Path(recipe.model))
    for data in (recipe.data, recipe.validation.data):
        if data:
            check_data_file(data)
    return whole_job(recipe, call[VerdictCode].inconclusive)


def whole_job(recipe: Recipe, inconclusive: int) -> int:
    """Run a recipe in the terminal."""
    from ... import api
    from ...evaluation.gate import exit_code

    result = api.run(recipe, listener=Console())
    print_validation(result.validation, result.folder / "report")
    return exit_code(result.validation, inconclusive)
