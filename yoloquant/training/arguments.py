"""Whose argument is whose: a training call mixes options of quantization, of pruning, and Ultralytics' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..options import build, flatten
from ..pruning.prune_options import PruneOptions
from .qat.qat_options import QATOptions

PREFIX = "prune_"


def split_arguments(
    qat: Any, prune: Any, arguments: Mapping[str, Any]
) -> tuple[Any, PruneOptions | Any, dict[str, Any]]:
    """Split the keywords of a training call.

    Args:
        qat: What ``qat=`` says: None, a preset, options or a mapping.
        prune: What ``prune=`` says: None, a share, options or a mapping.
        arguments: Fields of ``QATOptions``, fields of ``PruneOptions`` behind ``prune_``, and Ultralytics' arguments.

    Returns:
        Options of quantization-aware training and of pruning, None where there are none; and Ultralytics' arguments.

    Raises:
        UsageError: An option is given twice, or its value is not supported.
    """
    names = {alias for option in flatten(QATOptions).values() for alias in (option.name, *option.aliases)}
    of_qat = {key: value for key, value in arguments.items() if key in names}
    of_prune = {key[len(PREFIX) :]: value for key, value in arguments.items() if key.startswith(PREFIX)}
    # whatever is neither's is Ultralytics' own, and checked as such where the run begins
    rest = {k: v for k, v in arguments.items() if k not in of_qat and not k.startswith(PREFIX)}
    if of_qat:
        if isinstance(qat, QATOptions):
            raise UsageError(f"give {', '.join(f'{key}=' for key in of_qat)} or qat=QATOptions(...), not both")
        # a preset and single options go together: the preset says how long, the options what
        own = {"preset": qat} if isinstance(qat, str) else dict(qat or {})
        qat = build(QATOptions, {**own, **of_qat}, "train")
    if of_prune:
        if isinstance(prune, PruneOptions):
            raise UsageError(
                f"give {', '.join(f'{PREFIX}{k}=' for k in of_prune)} or prune=PruneOptions(...), not both"
            )
        own = dict(prune) if isinstance(prune, Mapping) else {} if prune is None else {"amount": prune}
        prune = build(PruneOptions, {**own, **of_prune}, "prune")
    return qat, prune, rest
