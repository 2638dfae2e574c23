"""The command line's words: spellings, unknown keys, values and help."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloquant.cli.commands.export import ExportCall
from yoloquant.cli.commands.quantize import QuantizeCall
from yoloquant.cli.commands.train import TrainCall
from yoloquant.cli.parser import Call, help_of, help_text, module_of, read, values_of
from yoloquant.cli.verbs import VERBS
from yoloquant.errors import UsageError
from yoloquant.pruning.prune_options import PruneOptions
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.runtime.apps.keys import BENCH, PREDICT
from yoloquant.training.qat.qat_options import Preset, QATOptions

GIVEN = {"model": "a.pt", "data": "d.yaml", "imgsz": "64,96", "allow_unsafe": "yes", "images": "9", "scheme": "x,y",
         "seed": "-4"}  # fmt: skip


def options_read(call: Call) -> tuple[object, ...]:
    own, options = call[QuantizeCall], call[QuantizeOptions]
    chosen = options.calibration
    return own.model, own.data, own.scheme, options.imgsz, options.allow_unsafe, chosen.images, chosen.seed


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=7, max_size=7), st.permutations(sorted(GIVEN)))
def test_every_mix_of_spellings_means_the_same(styles: list[int], order: list[str]) -> None:
    words = ["quantize"]
    for key, style in zip(order, styles, strict=True):
        dashed, value = key.replace("_", "-"), GIVEN[key]
        words += {0: [f"{key}={value}"], 1: [f"--{key}={value}"], 2: [f"--{dashed}", value], 3: [f"{dashed}={value}"]}[
            style
        ]
    assert options_read(read(words)) == ("a.pt", "d.yaml", ("x", "y"), (64, 96), True, 9, -4)


def test_defaults_are_those_of_the_models_and_aliases_fold() -> None:
    assert options_read(read(["quantize", "a.pt", "data=d"])) == ("a.pt", "d", ("auto",), None, False, 128, 0)
    for spelling in (["target=a"], ["--target", "a"], ["format=a"], ["--format=a"], ["targets=a"]):
        assert read(["export", "a.pt", *spelling])[ExportCall].targets == ("a",)


def test_the_fields_own_words_are_taken() -> None:
    pruned = read(["prune", "a.pt", "pruning_ratio=0.3", "max_pruning_ratio=0.6", "ignored_layers=x,y"])[PruneOptions]
    assert (pruned.amount, pruned.max_ratio, pruned.ignored) == (0.3, 0.6, ("x", "y"))
    trained = read(["train", "a.pt", "data=d", "oscillation_dampening=0.1", "reconstruction_weight=2"])[QATOptions]
    assert (trained.damping, trained.local_weight) == (0.1, 2.0)


def test_values_may_hold_anything() -> None:
    for words in (["model=/a dir/b=c.pt"], ["--model", "/a dir/b=c.pt"], ["/a dir/b=c.pt"]):
        assert read(["export", *words])[ExportCall].model == "/a dir/b=c.pt"
    assert read(["export", "--model", "targets=x"])[ExportCall].model == "targets=x"


def test_a_bare_first_word_is_what_the_verb_is_about() -> None:
    assert read(["run", "recipe.yaml", "limit=3"]).given == {"recipe": "recipe.yaml", "limit": "3"}
    assert read(["predict", "exports", "source=0"]).given == {"model": "exports", "source": "0"}
    for wrong in (["export", "data=d", "a.pt"], ["targets", "x"], ["quantize", "a.pt", "extra"]):
        with pytest.raises(UsageError, match=r"is not key=value.*for example: yoloquant"):
            read(wrong)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quantise", "model=x"], "unknown command 'quantise'; did you mean 'quantize'"),
        (["zzz"], "allowed are quantize, train"),
        (["quantize", "modl=x"], "'quantize' has no option 'modl'; did you mean 'model'"),
        (["quantize", "--modl", "x"], "did you mean 'model'"),
        (["quantize", "--modl=x"], "did you mean 'model'"),
        (["quantize", "a", "data=d", "--allow-unsaf=1"], "did you mean 'allow_unsafe'"),
        (["quantize", "a", "qqqq=1"], "allowed are model, data, scheme, output, imgsz"),
        (["export", "a", "fromat=openvino"], "did you mean 'format'"),
        (["predict", "a", "sorce=0"], "did you mean 'source'"),
        (["quantize"], "needs model=<.*data=<.*for example: yoloquant quantize"),
        (["quantize", "a"], "'quantize' needs data=<"),
        (["quantize", "a", "data=d", "images=0"], "images='0' is not supported; allowed is a whole number from 8"),
        (["quantize", "a", "data=d", "images=²"], "images='²' is not supported"),
        (["quantize", "a", "data=d", "images=9.5"], "a whole number from 8"),
        (["quantize", "a", "data=d", "imgsz=big"], "one number or height,width"),
        (["quantize", "a", "data=d", "imgsz=1,2,3"], "one number or height,width"),
        (["quantize", "a", "data=d", "allow_unsafe=maybe"], "true and false"),
        (["quantize", "a", "data=d", "range_activation=best"], "allowed are minmax, percentile, mse"),
        (["quantize", "a", "data=d", "range_weight=entropy"], "weights can only use minmax and mse"),
        (["analyze", "a", "data=d", "per=channel"], "allowed are layer, point"),
        (["train", "a", "data=d", "weight_bits=9"], "weight_bits='9'.*from 2 to 8"),
        (["prune", "a", "amount=1"], "amount='1'.*between 0 and 1"),
        (["quantize", "a", "model=b", "data=d"], "given twice"),
        (["export", "a", "targets=x", "format=y"], "'targets' is given twice, as 'format' too"),
    ],
)
def test_wrong_words(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(words)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"images='1'.*; seed='a'"):
        read(["quantize", "a", "data=d", "images=1", "seed=a"])


@pytest.mark.parametrize(
    ("verb", "word", "told"),
    [
        ("export", "half=True", "openvino:fp16"),
        ("validate", "nms=true", "yoloquant export nms=true"),
        ("validate", "dynamic=True", "imgsz="),
        ("quantize", "batch=4", "one image at a time"),
        ("export", "project=runs", "output="),
        ("run", "name=x", "output="),
        ("export", "val=True", "yoloquant validate"),
        ("quantize", "epochs=3", "yoloquant train"),
        ("export", "int8=False", "INT8"),
    ],
)
def test_words_of_ultralytics_are_answered_in_one_line(verb: str, word: str, told: str) -> None:
    words = [verb, "model=a.pt", "data=d", word]
    with pytest.raises(UsageError, match=told) as error:
        read(words)
        from yoloquant.recipe import as_recipe  # the verb run hands its words to the recipe

        as_recipe(None, read(words).given)
    assert "\n" not in str(error.value)


def test_what_happens_anyway_may_be_asked_for() -> None:
    assert read(["export", "a.pt", "int8=True", "quantize=8"]).given == {"model": "a.pt"}


def test_training_takes_its_options_and_hands_on_the_rest() -> None:
    call = read(["train", "a.pt", "--preset", "fast", "range-lr=0.5", "epochs=3", "close-mosaic=1e-3", "amp=False",
                 "freeze=[0, 1]", "name=x=y", "time=None", "batch=4", "device=cpu", "prune_criterion=l1"])  # fmt: skip
    assert call[TrainCall].model == "a.pt"
    assert (call[QATOptions].preset, call[QATOptions].range_lr) == (Preset.FAST, 0.5)
    assert call.extra == {
        "epochs": 3, "close_mosaic": 1e-3, "amp": False, "freeze": [0, 1], "name": "x=y", "time": None, "batch": 4,
        "device": "cpu", "prune_criterion": "l1",
    }  # fmt: skip
    with pytest.raises(UsageError, match="not key=value"):
        read(["train", "a.pt", "epochs"])


def test_values_are_read_as_yaml_does() -> None:
    assert values_of({"a": "1", "b": "none", "c": "TRUE", "d": "x"}) == {"a": 1, "b": None, "c": True, "d": "x"}


def test_help_lists_every_verb_and_every_option() -> None:
    assert all(verb.name in help_text() and verb.help[:20] in help_text() for verb in VERBS)
    assert "Exit codes: 0 pass" in help_text()
    for verb in VERBS:
        shown, module = help_of(verb), module_of(verb)
        assert f"Example: {verb.example}" in shown
        assert hasattr(module, "KEYS") == (verb.name in ("predict", "bench")), "the runtime defines its verbs itself"
    assert "images=128" in help_of(VERBS[0]) and "data=" in help_of(VERBS[0]) and "(required)" in help_of(VERBS[0])
    for name, keys in (("predict", PREDICT), ("bench", BENCH)):
        verb = next(v for v in VERBS if v.name == name)
        assert all(f"  {key.name}=" in help_of(verb) for key in keys)


def test_every_example_is_read() -> None:
    for verb in VERBS:
        call = read(verb.example.split()[1:])
        assert call.verb is verb
