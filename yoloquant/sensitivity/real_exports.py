"""Plans as their runtime computes them: exported, scored on the search's images, timed beside the plan as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..evaluation.results import Interval
from ..quantization.artifact import Artifact
from ..quantization.plan import Plan
from ..runtime.core.runner import Runner
from ..types import ExportedModel
from .images import Images
from .plan_times import FOUND, INTEGERS, time_plans
from .search_start import with_plan

if TYPE_CHECKING:
    from ..quantization.scheme import Scheme
    from ..targets.base import Target

PICTURES = 4
"""A few: how long a network takes hardly depends on what it sees."""


def runtime_here(scheme: Scheme) -> tuple[Target | None, str]:
    """The runtime that a scheme is for; None, and why, where it does not run here."""
    from .. import targets

    if scheme.name not in targets.names():
        return None, f"scheme '{scheme.name}' is no single runtime's"
    target = targets.get(scheme.name)
    if not target.capabilities.runs_here:
        return None, f"what runs exports of scheme '{scheme.name}' is on another device"
    if missing := target.missing():
        return None, f"{missing[0]} is not installed"
    return target, ""


def timed_target(scheme: Scheme) -> Target:
    """The runtime of a scheme whose exports can be timed on this machine.

    Raises:
        UsageError: There is none.
        MissingExtraError: It is not installed.
    """
    from .. import targets

    able = [name for name in targets.names() if _timed(targets.get(name))]
    if scheme.name not in able:
        _, why = runtime_here(scheme)
        raise UsageError(
            f"slower= compares real exports, and {why or f'times of {scheme.name} here say nothing of its device'}; "
            f"allowed are scheme={', '.join(able)}, or leave slower= out"
        )
    target = targets.get(scheme.name)
    target.require()
    return target


def _timed(target: Target) -> bool:
    able = target.capabilities
    return able.runs_here and able.timed_here and able.float_layers


class RealExports:
    """Exports plans of one scheme into a folder, and measures them.

    Args:
        artifact: The model.
        scheme: The scheme.
        target: Its runtime.
        images: Images of the search.
        threads: Threads of the runtime.
        folder: Where exports are written.
    """

    def __init__(
        self, artifact: Artifact, scheme: Scheme, target: Target, images: Images, threads: int, folder: Path
    ) -> None:
        self.artifact, self.scheme, self.target = artifact, scheme, target
        self.images, self.threads, self.folder = images, threads, folder

    def export(self, plan: Plan) -> ExportedModel:
        """Export a plan, in the place of the last one."""
        return self._write(plan, FOUND)

    @contextmanager
    def opened(self, exported: ExportedModel) -> Iterator[Runner]:
        """The runtime with an export."""
        with closing(self.target.load(exported, self.threads)) as runner:
            yield runner

    def time(self, exported: ExportedModel) -> tuple[Interval, dict[str, float]]:
        """Time an export in turns with the plan as it was: the ratio, and milliseconds of both."""
        pictures = [self.images.data.read(index) for index in range(min(PICTURES, len(self.images.data)))]
        return time_plans({INTEGERS: self._before, FOUND: exported}, pictures, self.threads)

    @cached_property
    def _before(self) -> ExportedModel:
        return self._write(self.artifact.plan_for(self.scheme), INTEGERS)

    def _write(self, plan: Plan, stem: str) -> ExportedModel:
        return self.target.export(with_plan(self.artifact, self.scheme, plan), self.folder, stem)
