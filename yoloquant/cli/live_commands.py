"""The commands that run what was exported: predict and bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .verbs import VERBS

if TYPE_CHECKING:
    from argparse import Namespace


def _named(options: Namespace, verb: str) -> dict[str, str]:
    """The arguments that were given; the runtime, which also runs without this package, knows the defaults."""
    table = next(v for v in VERBS if v.name == verb)
    return {o.name: str(getattr(options, o.name)) for o in table.options if getattr(options, o.name) is not None}


def predict(options: Namespace) -> int:
    """``yoloquant predict``."""
    from ..inference.run_exports import predict_main

    return predict_main(_named(options, "predict"), _say)


def bench(options: Namespace) -> int:
    """``yoloquant bench``."""
    from ..inference.run_exports import bench_main

    return bench_main(_named(options, "bench"), _say)


def verify(options: Namespace) -> int:
    """``yoloquant verify``."""
    from ..bundle.verify_on import verify_on

    values = _named(options, "verify")
    processors, root = values.pop("cpu", "native"), values.pop("cpu_root", "")
    folder = values.pop("bundle")
    codes = {"pass": 0, "inconclusive": 3, "fail": 1, "error": 4}
    results = []
    for check in verify_on(folder, processors, root=root, arguments=[f"{k}={v}" for k, v in values.items()]):
        _say(f"{check.title}: {check.result.upper()}")
        for line in check.lines:
            _say(f"  {line.strip()}")
        results.append(check.result)
    return codes[max(results, key=list(codes).index)]


def _say(text: str) -> None:
    print(text, flush=True)  # a line is read as soon as it is written, also through a pipe
