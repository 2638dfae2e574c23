"""From options to a plan, whichever way it is asked for: a target, measured latency, or a saved plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cost import Cost
from .criteria import Measure
from .plan import PrunePlan
from .planner import Analysis, make_plan, refreshed
from .prune_options import PruneOptions

if TYPE_CHECKING:
    from ..bridge.host_model import HostModel


def choose(
    analysis: Analysis,
    source: HostModel,
    options: PruneOptions,
    imgsz: tuple[int, int],
    *,
    full: Cost | None = None,
) -> PrunePlan:
    """The plan that options ask for.

    Args:
        analysis: The weighed model.
        source: The model itself.
        options: What is asked for.
        imgsz: Input height and width in pixels.
        full: Cost that the share counts from, where earlier steps have pruned; the model's own by default.

    Raises:
        PruneError: The target cannot be met, or a saved plan does not fit.
        UsageError: An option does not fit the model.
    """
    # A saved plan has been decided; only what it costs is counted anew.
    if options.plan is not None:
        return refreshed(PrunePlan.load(options.plan), analysis)
    protected = _protected(options)
    multiple = channel_multiple(options.runtime)
    if options.target is Measure.LATENCY:
        from .latency import plan_for_latency

        return plan_for_latency(analysis, source, options, imgsz, round_to=multiple, protected=protected)
    return make_plan(analysis, options, imgsz, round_to=multiple, protected=protected, full=full)


def channel_multiple(runtime: str) -> int:
    """The multiple of channels that a runtime's kernels are fast with."""
    from .. import targets

    return targets.get(runtime).capabilities.channel_multiple


def _protected(options: PruneOptions) -> dict[str, float] | None:
    if options.sensitivity is None:
        return None
    from ..evaluation.sensitivity import Sensitivity

    return dict(Sensitivity.load(options.sensitivity).protected(options.tolerance))
