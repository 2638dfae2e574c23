"""What a study is told; light enough for the command."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from pydantic import BeforeValidator

from ..errors import UsageError
from ..options import TextOrNone, option, option_model
from ..options.shared import ClusterAddress
from ..options.where import Where, refuse_for_ray
from .objectives import Objective, Scores, check_objectives


class Sampler(str, Enum):
    """How the next trial is chosen; Optuna's."""

    GRID = "grid"
    RANDOM = "random"
    TPE = "tpe"
    NSGA2 = "nsga2"


class Stopper(str, Enum):
    """Which trials are stopped early, by their score after every epoch; Optuna's pruners."""

    NONE = "none"
    MEDIAN = "median"
    ASHA = "asha"


def _several(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


# the command gives one text, Python a list
Objectives = Annotated[tuple[Objective, ...], BeforeValidator(_several)]


@option_model
class TuneOptions:
    """A study."""

    space: TextOrNone = option(default=None, help="a ready-made space: ptq, qat, prune or all")
    objective: Objectives = option(
        default=(Objective.FIDELITY,),
        help="what is made better, separated by commas: fidelity, map_drop, latency, size, multiplications; of several "
        "the Pareto front is kept",
        aliases=("objectives",),
        allowed="fidelity, map_drop, latency, size, multiplications",
    )
    sampler: Sampler = option(default=Sampler.TPE, help="grid, random, tpe (Bayesian) or nsga2 (evolutionary)")
    pruner: Stopper | None = option(
        default=None,
        help="none, median or asha: stop trials that train badly, by their score after every epoch; median where one "
        "objective is of accuracy and something trains",
    )
    trials: int = option(default=30, ge=1, help="how many trials")
    hours: float | None = option(
        default=None, gt=0, help="begin no trial after so many hours; the second look gets its share"
    )
    drop: float | None = option(
        default=None, ge=0, help="largest drop of mAP50-95 of the chosen result, as a fraction: 0.005 is half a point"
    )
    default_drop: bool = option(
        default=False,
        help="instead of drop: the chosen result may lose as much as the recipe without any search loses on the same "
        "images",
    )
    held_back: int = option(default=64, ge=4, help="so many training images are held back to score trials on")
    few: float = option(
        default=0.25,
        gt=0,
        le=1,
        help="share of these images, or of the epochs where something trains, that trials get at first; 1: all",
    )
    again: int = option(default=4, ge=1, help="how many of the best are measured again with all images or epochs")
    grid: int = option(default=4, ge=2, help="with sampler=grid: how many values of a range")
    population: int = option(default=12, ge=2, help="with sampler=nsga2: trials of a generation")
    sampler_seed: int = option(default=0, ge=0, help="of the sampler")
    confirm: bool = option(default=True, help="run the chosen recipe whole at the end, scored once on the scored split")
    name: str = option(default="tune", help="name of the study in its storage")
    storage: TextOrNone = option(
        default=None, help="URL of a database of studies, for several machines; a SQLite file in output= if not given"
    )
    on: Where = option(default=Where.LOCAL, help="local, or ray: trials are tasks of a Ray cluster")
    address: ClusterAddress = None
    workers: int = option(default=2, ge=1, help="with on=ray: trials at a time")
    cpus: float = option(default=1, gt=0, help="with on=ray: processors of a trial")
    gpus: float = option(default=0, ge=0, help="with on=ray: GPUs of a trial")

    def __post_init__(self) -> None:
        if not self.objective:
            raise UsageError("objective= names nothing; allowed are " + ", ".join(o.value for o in Objective))
        if self.default_drop and self.drop is not None:
            raise UsageError(f"drop={self.drop:g} and default_drop=true are two limits; give one")
        check_objectives(self.objective, limited=self.limited)
        if self.pruner not in (None, Stopper.NONE) and len(self.objective) > 1:
            raise UsageError(
                f"pruner={self.pruner.value} needs one objective, and there are {len(self.objective)}; leave it out"
            )
        refuse_for_ray(self.on, address=self.address)

    @property
    def limited(self) -> bool:
        """Whether there is a limit on the drop."""
        return self.drop is not None or self.default_drop

    @property
    def measured(self) -> tuple[Objective, ...]:
        """Objectives, and what the limit needs besides."""
        # a limit must be measured too, though nothing is made better by it
        unnamed = self.limited and Objective.MAP_DROP not in self.objective
        return (*self.objective, *((Objective.MAP_DROP,) if unnamed else ()))

    def limit(self, default: Scores | None) -> float | None:
        """The largest drop that is wanted.

        Args:
            default: Scores of the recipe without any search, measured with as many images and epochs; None where there
                are none yet.
        """
        if not self.default_drop:
            return self.drop
        return None if default is None else default[Objective.MAP_DROP.value]

    @property
    def looks_twice(self) -> bool:
        """Whether trials get little at first."""
        return self.few < 1
