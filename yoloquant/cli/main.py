"""The ``yoloquant`` command: the only place that prints, draws progress bars and sets exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import OutputError, SourceError, TargetError, UsageError, YoloquantError
from . import compress_commands as shrink
from . import live_commands as live
from .compress_commands import prune_settings
from .parser import build_parser, extras, given, normalise
from .progress import bar
from .verbs import QAT, VERBS

if TYPE_CHECKING:
    from argparse import Namespace
    from contextlib import AbstractContextManager

    from ..evaluation.results import TargetResult, ValidationResult
    from ..quantization.artifact import Artifact
    from ..recipe import Recipe
    from ..targets.exports import ExportResult
    from ..types import Progress

EXIT_USAGE, EXIT_TARGET, EXIT_INTERRUPTED = 2, 4, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``yoloquant`` command.

    Args:
        arguments: What follows the command's name; the process's own if None.

    Returns:
        The exit code: 0 pass, 1 fail, 2 usage or bad input, 3 inconclusive, 4 a target could not be built or run.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # PyTorch's spinning threads crawl on a busy machine
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        parser = build_parser(VERBS, __version__)
        options = parser.parse_args(normalise(given, VERBS))
        if options.verb is None:
            parser.print_help()
            return EXIT_USAGE
        return int(_COMMANDS[options.verb](options))
    except SystemExit as exc:  # --help and --version
        return int(exc.code or 0)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing half-written was left behind", file=sys.stderr)
        return EXIT_INTERRUPTED
    except YoloquantError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return EXIT_TARGET if isinstance(exc, (TargetError, SourceError)) else EXIT_USAGE
    except OSError as exc:
        print(f"error: {OutputError(f'reading or writing failed: {exc}')}", file=sys.stderr)
        return EXIT_USAGE


def _given(options: Namespace, verb: str) -> dict[str, Any]:
    return given(options, VERBS, verb)


def _recipe(values: dict[str, Any], named: Callable[[str], bool]) -> Recipe:
    """A recipe from arguments, on top of a recipe file where there is one."""
    import yaml

    from ..recipe import load_recipe, make_recipe

    content: dict[str, Any] = {}
    if values.get("recipe"):
        load_recipe(values["recipe"])
        content = yaml.safe_load(Path(values["recipe"]).read_text(encoding="utf-8"))
    places = {
        "images": ("calibration", "images"),
        "calibration_split": ("calibration", "split"),
        "seed": ("calibration", "seed"),
        "allow_scored": ("calibration", "allow_scored"),
        **{
            k: ("validation", k)
            for k in ("gate", "split", "source", "limit", "threads", "latency", "memory", "bootstrap")
        },
        **{k: ("validation", k) for k in ("manifest", "cpu", "cpu_root")},
        **{
            k: (k,)
            for k in (
                *(
                    "model",
                    "data",
                    "targets",
                    "scheme",
                    "imgsz",
                    "output",
                    "allow_unsafe",
                    "prune",
                    "train",
                ),
            )
        },
    }
    for key, place in places.items():
        if key not in values or values[key] is None or not (named(key) or key not in ("targets", "scheme")):
            continue
        if not named(key) and values.get("recipe"):
            continue  # a default must not override the file
        part = content if len(place) == 1 else content.setdefault(place[0], {})
        part[place[-1]] = values[key]
    if not content.get("model") or not content.get("data"):
        raise UsageError("a run needs model=<checkpoint> and data=<data yaml>, or a recipe that names them")
    return make_recipe(content, values.get("recipe") or "arguments")


def _quantize(options: Namespace) -> int:
    from .. import api
    from ..io import output_folder

    values = _given(options, "quantize")
    recipe = _recipe(values, lambda key: getattr(options, key, None) is not None)
    folder = Path(recipe.model).parent
    if recipe.output or folder.is_dir():  # a missing model gets its own message
        folder = output_folder(recipe.output or folder)
    path = folder / f"{Path(recipe.model).stem}_int8.pt"
    with bar("calibrating") as progress:
        artifact = api.quantize(
            recipe.model,
            data=recipe.data,
            scheme=recipe.scheme,
            options=recipe.quantize_options,
            progress=progress,
        )
    artifact.save(path)
    print(f"saved {path} with plans {', '.join(artifact.plans)}")
    print(f"next: yoloquant export model={path} targets=all")
    return 0


def _train(options: Namespace) -> int:
    from .. import api

    values = _given(options, "train")
    model, data = values.pop("model"), values.pop("data")
    prune, arguments = prune_settings(values.pop("prune"), extras(options.extra))
    quantizes = prune is None or any(getattr(options, o.name, None) is not None for o in QAT)
    result = api.train(model, data=data, qat=values if quantizes else None, prune=prune, **arguments)
    if not result.quantized:
        print(f"pruned and fine-tuned: {result.best}")
        print(f"fitness {result.score:.4f}, of the unpruned model {result.score_calibrated:.4f}")
        print(f"next: yoloquant train model={result.best} data={data} preset=fast, or yoloquant run model=...")
        return 0
    print(f"{'trained' if result.improved else 'training did not help; kept the calibrated ranges:'} {result.best}")
    print(f"score on held-back images: {result.score:.4f}, calibrated {result.score_calibrated:.4f}")
    print(f"plots and results: {result.folder}")
    print(f"next: yoloquant export model={result.best} targets=all")
    return 0


def _export(options: Namespace) -> int:
    from .. import api, bundle, targets
    from ..bridge.checkpoint import load_model
    from ..io import output_folder
    from ..quantization.artifact import Artifact
    from ..targets.export import complete

    values = _given(options, "export")
    alone = [name for name in ("archive", "report", "golden_images") if getattr(options, name)]
    if alone and not values["bundle"]:
        raise UsageError(f"{alone[0]}= is for bundles; pass bundle=true as well, or leave it out")
    names = values["targets"] if not values["bundle"] else [d.wanted for d in bundle.resolve(values["targets"])]
    chosen = targets.resolve(names)
    if values["output"]:
        output_folder(values["output"])  # before calibration, not after it
    if load_model(values["model"], allow_unsafe=values["allow_unsafe"]).state:
        artifact = Artifact.load(values["model"], allow_unsafe=values["allow_unsafe"])
        if values["data"] is not None:
            given = _recipe(values, lambda key: getattr(options, key, None) is not None)
            with bar("calibrating what was not trained") as progress:
                artifact = complete(
                    artifact, chosen, data=given.data, options=given.quantize_options, progress=progress
                )
    else:
        if values["data"] is None:
            raise UsageError(
                f"'{values['model']}' is a plain checkpoint; pass data=<data yaml> to calibrate it, or run "
                "'yoloquant quantize' first"
            )
        recipe = _recipe(values, lambda key: getattr(options, key, None) is not None)
        with bar("calibrating") as progress:
            artifact = api.quantize(
                recipe.model, data=recipe.data, scheme=recipe.scheme, options=recipe.quantize_options, progress=progress
            )
    if values["bundle"]:
        return _bundles(artifact, values)
    with bar("exporting") as progress:
        outcome = api.export(artifact, targets=[t.wanted for t in chosen], folder=values["output"], progress=progress)
    _print_exports(outcome)
    print(f"next: yoloquant validate model={values['model']} exports={outcome.folder} data=<data yaml>")
    return 0


def _bundles(artifact: Artifact, values: dict[str, Any]) -> int:
    from .. import bundle

    options = bundle.BundleOptions(**{name: values[name] for name in ("archive", "report", "data", "golden_images")})
    with bar("bundling") as progress:
        made = bundle.make(
            artifact, devices=values["targets"], folder=values["output"], options=options, progress=progress
        )
    for each in made:
        print(f"bundled {each.manifest.device}: {each.archive or each.path}")
        print(f"  id {each.manifest.id}: verify expect=<id> holds the device to this very bundle")
        for note in each.notes:
            print(f"  note: {note}")
    print("next, on the device, in the bundle's folder: pip install -r requirements.txt, then")
    print("      python -m yoloquant_runtime verify")
    return 0


def _validate(options: Namespace) -> int:
    from .. import api
    from ..evaluation.gate import exit_code
    from ..evaluation.validate_options import ValidateOptions

    values = _given(options, "validate")
    folder = Path(values["exports"])
    report = Path(values["output"] or (folder if folder.is_dir() else folder.parent) / "report")
    with bar("validating") as progress:
        result = api.validate(
            values["model"],
            values["exports"],
            data=values["data"],
            source=values["source"],
            options=ValidateOptions(
                **{
                    k: values[k]
                    for k in (
                        *("gate", "split", "limit", "threads", "latency", "memory", "bootstrap", "manifest"),
                        *("cpu", "cpu_root"),
                    )
                },
                report=report,
            ),
            progress=progress,
        )
    _print_result(result, report)
    return exit_code(result, values["inconclusive"])


def _run(options: Namespace) -> int:
    values = _given(options, "run")
    recipe = _recipe(values, lambda key: getattr(options, key, None) is not None)
    return _whole_job(recipe, values["inconclusive"])


def _whole_job(recipe: Recipe, inconclusive: int) -> int:
    from .. import api
    from ..evaluation.gate import exit_code

    result = api.run(recipe, listener=_Console())
    _print_result(result.validation, result.folder / "report")
    return exit_code(result.validation, inconclusive)


class _Console:
    """Shows a run in the terminal."""

    def stage(self, name: str) -> AbstractContextManager[Progress | None]:
        """A progress bar for a stage."""
        return bar(name)

    def note(self, text: str) -> None:
        """A line about what a stage made."""
        print(text)

    def exported(self, exports: ExportResult) -> None:
        """The list of artifacts."""
        _print_exports(exports)


def _plan(options: Namespace) -> int:
    from .. import api
    from ..io import atomic_path

    values = _given(options, "plan")
    plan = api.plan(values["model"], scheme=values["scheme"], imgsz=values["imgsz"])
    if values["output"]:
        with atomic_path(Path(values["output"])) as temporary:
            temporary.write_text(plan.to_json())
        print(f"saved {values['output']}")
    else:
        print(plan)
    return 0


def _targets(options: Namespace) -> int:
    from .. import targets

    print(f"{'target':<13} {'devices':<28} {'here':<22} install")
    for name in targets.names():
        target = targets.get(name)
        missing = target.missing()
        here = f"missing {', '.join(missing)}" if missing else "builds and runs"
        if not missing and not target.capabilities.runs_here:
            here = "builds, simulated"
        hint = f'pip install "yoloquant[{target.extra}]"' if missing and target.extra else ""
        print(f"{name:<13} {', '.join(n for d in target.devices for n in d.names):<28} {here:<22} {hint}".rstrip())
        for variant, meaning in target.variants.items():
            print(f"  :{variant:<10} {meaning}")
    return 0


def _demo(options: Namespace) -> int:
    from ..data import demo
    from ..recipe import make_recipe

    values = _given(options, "demo")
    folder = Path(values["output"])
    print("drawing the demo images")
    recipe = make_recipe({**demo.prepare(folder), "targets": values["targets"], "output": str(folder / "exports")})
    return _whole_job(recipe, 3)


def _print_exports(outcome: ExportResult) -> None:
    for export in outcome.exports:
        print(f"exported {export.target}: {export.path} ({export.size_bytes / 1e6:.2f} MB)")
        for note in export.notes:
            print(f"  note: {note}")
    for name, error in outcome.errors.items():
        print(f"failed {name}: {error}", file=sys.stderr)


def _print_result(result: ValidationResult, report: Path) -> None:
    head = f"{'target':<14} {'mAP50-95':>8} {'drop':>7} {'95 % interval':>16} {'fidelity':>9} {'ms':>8} {'ratio':>6}"
    print(f"\n{head}  verdict")
    for row in (result.baseline, *result.targets):
        print(_row(row))
        if row.error:
            print(f"  error: {row.error}")
        for check in row.checks:
            if check.verdict.value != "pass":
                print(f"  {check.verdict.value}: {check.message}")
    print(f"\nreport:  {report / 'report.html'}")
    print(f"verdict: {result.verdict.value.upper()} by gate '{result.gate}' on {result.images} images")


def _row(row: TargetResult) -> str:
    accuracy, comparison, latency = row.accuracy, row.comparison, row.latency
    drop = comparison.map_drop if comparison else None
    cells = [
        f"{row.target:<14}",
        f"{accuracy.map50_95 * 100:8.2f}" if accuracy else f"{'-':>8}",
        f"{drop.value * 100:+7.2f}" if drop else f"{'-':>7}",
        f"{f'{drop.low * 100:+.2f} to {drop.high * 100:+.2f}':>16}" if drop else f"{'-':>16}",
        f"{comparison.fidelity.value:9.3f}" if comparison else f"{'-':>9}",
        f"{latency.median_ms:8.1f}" if latency else f"{'-':>8}",
        f"{comparison.latency_ratio:6.2f}" if comparison and comparison.latency_ratio else f"{'-':>6}",
        f" {row.verdict.value}",
    ]
    return " ".join(cells)


_COMMANDS: dict[str, Callable[[Any], int]] = {
    "prune": shrink.prune,
    "analyze": shrink.analyze,
    "predict": live.predict,
    "bench": live.bench,
    "verify": live.verify,
    "quantize": _quantize,
    "train": _train,
    "export": _export,
    "validate": _validate,
    "run": _run,
    "plan": _plan,
    "targets": _targets,
    "demo": _demo,
}

if __name__ == "__main__":
    sys.exit(main())
