"""The command line of a bundle: ``python -m yoloquant_runtime verify``. The only place of the runtime that prints."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run by the path of its folder: python /media/bundle/yoloquant_runtime verify
    # Python has put this folder itself on its path, where io/ and errors.py would be found as modules of their own.
    _HERE = Path(__file__).resolve().parent
    sys.path[:] = [str(_HERE.parent), *(place for place in sys.path if Path(place or ".").resolve() != _HERE)]
    runpy.run_module(_HERE.name, run_name="__main__", alter_sys=True)
    sys.exit()

from .apps.keys import BENCH, INFO, PREDICT, VERIFY
from .apps.settings import VerbSettings, parse
from .core.nearest import nearest
from .errors import OutputError, SourceError, TargetError, UsageError, YoloquantError

if TYPE_CHECKING:
    from .apps.verify import Verification

# 1 and 3 are verdicts, so no error may end with them; 130 is what shells give a program that Ctrl-C ended.
EXIT_USAGE, EXIT_COULD_NOT_RUN, EXIT_INTERRUPTED = 2, 4, 130
HELP = """\
usage: python -m {package} VERB [key=value ...]

  verify        prove this bundle here: file hashes, golden inputs; with data=<folder or yaml> also accuracy;
                on a Jetson, the engine is built first if there is none for this device
                keys: data limit threads device hint expect=<bundle id> json=<file>
  info          print what the bundle holds; keys: json=<file>
  predict       detect: source=0|video.mp4|rtsp://...|folder conf=0.25; predict --help lists all keys
  bench         measure latency, throughput and resources; bench --help lists all keys
  build_engine  Jetson: build the TensorRT engine on this device

Every verb explains itself with --help and takes bundle=<folder>; without it, the bundle is the folder that holds
this package.
Keys are written key=value or --key value. Exit codes: 0 pass, 1 fail, 2 wrong input or damaged bundle,
3 inconclusive, 4 the model could not be run here.
"""


_KEYS = {"verify": VERIFY, "info": INFO, "predict": PREDICT, "bench": BENCH}
_DOES = {
    "verify": "Prove this bundle here: hashes of its files, its golden inputs, and with data= its accuracy.",
    "info": "Print what the bundle holds.",
    "predict": "Run the model on images, a video, a camera or a stream.",
    "bench": "Measure latency, throughput and resources.",
    "build_engine": "Build the TensorRT engine of this bundle on this device.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: What follows the program's name; the process's own if None.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP.format(package=__package__))
        return 0 if given else EXIT_USAGE
    try:
        if given[0] not in _VERBS:
            raise UsageError(f"there is no verb '{given[0]}'{nearest(given[0], _VERBS)}")
        if any(word in ("-h", "--help", "help") for word in given[1:]):
            print(explain(given[0]))
            return 0
        return _VERBS[given[0]](parse(given[1:]))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except YoloquantError as exc:
        print(f"error: {exc}", file=sys.stderr)
        # What this machine or its camera fails at is told apart from what must be given differently.
        return EXIT_COULD_NOT_RUN if isinstance(exc, (TargetError, SourceError)) else EXIT_USAGE
    except OSError as exc:
        print(f"error: {OutputError(f'reading or writing failed: {exc}')}", file=sys.stderr)
        return EXIT_USAGE
    except ImportError as exc:
        print(f"error: {exc}; install what this bundle needs: pip install -r requirements.txt", file=sys.stderr)
        return EXIT_COULD_NOT_RUN
    except Exception as exc:  # a runtime may raise anything; Python's own exit code 1 would say that a limit was missed
        print(f"error: {type(exc).__name__}: {' '.join(str(exc).split())[:300]}; {_logged()}", file=sys.stderr)
        return EXIT_COULD_NOT_RUN


def _logged() -> str:
    """Write the traceback to a file of its own; where that is, for people."""
    try:
        handle, name = tempfile.mkstemp(prefix="yoloquant-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(traceback.format_exc())
    except OSError:  # no room even for that
        traceback.print_exc()
        return "please report it with the lines above"
    return f"please report it with {name}"


def explain(verb: str) -> str:
    """Help on one verb: what it does, and every key."""
    lines = [f"usage: python -m {__package__} {verb} [key=value ...]", "", _DOES[verb], ""]
    if verb == "build_engine":
        from dataclasses import fields

        from .tensorrt.build_options import BuildOptions

        keys = [("bundle", VERIFY[0].help), ("output", "another place for the engine")]
        keys += [(f.name, f"default {f.default}") for f in fields(BuildOptions)]
    else:
        keys = [(key.name, key.help) for key in _KEYS[verb]]
        keys += [VERIFY[0]] if "bundle" not in dict(keys) else []
    return "\n".join([*lines, *(f"  {name:<14} {text}" for name, text in keys)])


def _folder(arguments: dict[str, str]) -> Path:
    """The bundle: the one named, else the folder that holds this package, else the working folder."""
    if arguments.get("bundle"):
        return Path(arguments["bundle"])
    own = Path(__file__).resolve().parent.parent
    # Without a manifest this is the installed package and not the copy in a bundle.
    return own if (own / "manifest.json").is_file() else Path.cwd()


def _checked(arguments: dict[str, str]) -> Path:
    """The bundle, its files proven before anything beyond the standard library is imported from beside it."""
    from .core.bundle_manifest import read

    folder = _folder(arguments)
    read(folder, expect=arguments.get("expect", ""))
    return folder


def _verify(arguments: dict[str, str]) -> int:
    settings = VerbSettings(arguments, VERIFY, "verify")
    folder = _checked(arguments)
    # Only behind the check: a module beside this one that was changed must be refused before it runs.
    from .apps.verify import VerifyOptions, verify
    from .backends import BackendOptions

    backend = BackendOptions(
        threads=settings.whole("threads", None), device=settings.text("device"), hint=settings.text("hint", "latency")
    )
    options = VerifyOptions(
        data=settings.text("data"),
        limit=settings.whole("limit", None),
        expect=settings.text("expect"),
        backend=backend,
    )
    outcome = verify(folder, options)
    _print(outcome)
    if settings.text("json"):
        _write(settings.text("json"), json.dumps(outcome.to_dict(), indent=1, allow_nan=False) + "\n")
    return outcome.exit_code


def _print(outcome: Verification) -> None:
    environment = outcome.environment
    print(f"bundle {outcome.bundle} ({outcome.device}, {outcome.target})")
    print(f"on {environment['machine']}, Python {environment['python']}, {environment['backend_version']}")
    for check in outcome.checks:
        print(f"  {check.result.value:<12} {check.name}: {check.message}")
    print(f"{outcome.result.value.upper()} after {outcome.seconds:.1f} s")


def _info(arguments: dict[str, str]) -> int:
    from .core.bundle_manifest import read  # nothing that imports numpy: a look needs the standard library alone

    settings = VerbSettings(arguments, INFO, "info")
    manifest = read(_folder(arguments))
    if settings.text("json"):
        _write(settings.text("json"), manifest.text())
    info, accuracy = manifest.info, manifest.accuracy
    print(f"bundle    {manifest.id}")
    print(f"for       {manifest.device} (target {manifest.target}, backend {manifest.backend}, {manifest.precision})")
    print(f"model     {manifest.model} from {manifest.source.get('model', '?')}")
    print(f"input     {info.imgsz[0]} x {info.imgsz[1]} pixels, {len(info.names)} classes: {', '.join(info.names)}")
    if accuracy is not None:
        measured = ", ".join(f"{name} {value:.4f}" for name, value in accuracy.metrics.items())
        print(f"accuracy  {measured} on {accuracy.images} images ({accuracy.source})")
    print(f"files     {len(manifest.files)}, all as exported")
    return 0


def _handed_on(module: str, key: str) -> Callable[[dict[str, str]], int]:
    """A verb of another module, whose ``main`` takes the arguments and the bundle under a key of its own."""

    def call(arguments: dict[str, str]) -> int:
        # A model= that is given may be several, or no bundle; the verb proves them itself when it reads them.
        if key == "bundle" or key not in arguments:
            arguments[key] = str(_checked(arguments))
        if key != "bundle":
            arguments.pop("bundle", "")
        return int(importlib.import_module(module, __package__).main(arguments, _say))

    return call


def _say(text: str) -> None:
    # JSON lines are read by another program meanwhile: a pipe would hold them back until a block is full.
    print(text, flush=True)


def _write(path: str, text: str) -> None:
    """Write under another name first, so that a reader never sees half of it."""
    final = Path(path)
    temporary = final.with_name(f".{final.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(final)
    except OSError as exc:
        raise OutputError(f"'{path}' cannot be written ({exc.strerror or exc}); choose another json=") from exc
    finally:
        if temporary.exists():
            temporary.unlink()


_VERBS: dict[str, Callable[[dict[str, str]], int]] = {
    "verify": _verify,
    "info": _info,
    "predict": _handed_on(".apps.predict", "model"),
    "bench": _handed_on(".apps.bench", "model"),
    "build_engine": _handed_on(".tensorrt", "bundle"),
}

if __name__ == "__main__":
    sys.exit(main())
