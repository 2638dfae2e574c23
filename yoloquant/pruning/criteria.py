"""The closed sets that pruning is asked for in, and what must stay whatever is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from ..errors import UsageError
from ..sparsity.record import TWO_FOUR


class PruningKind(str, Enum):
    """What is removed."""

    STRUCTURED = "structured"  # whole channels: a smaller, faster model on every runtime
    UNSTRUCTURED = "unstructured"  # single weights: a model that compresses better
    NM = TWO_FOUR  # two of four neighbouring weights: what TensorRT's sparse tensor cores run


class FineTune(str, Enum):
    """What the pruned model is trained on."""

    BOTH = "both"  # labels and the unpruned model
    DISTILL = "distill"  # the unpruned model alone: needs no labels
    DETECT = "detect"  # labels alone


class ImportanceCriterion(str, Enum):
    """How the importance of a channel is measured."""

    L1 = "l1"
    L2 = "l2"
    BN = "bn"
    TAYLOR = "taylor"
    LAMP = "lamp"
    RANDOM = "random"


class PruningScope(str, Enum):
    """How removals are spread."""

    GLOBAL = "global"  # the least important units of the whole network
    UNIFORM = "uniform"  # the same share of every group


class Measure(str, Enum):
    """What a target is a share of."""

    CHANNELS = "channels"
    FLOPS = "flops"
    PARAMETERS = "parameters"
    LATENCY = "latency"


class Permutation(str, Enum):
    """Whether channels are reordered before 2:4 pruning, so that the pattern keeps more magnitude."""

    NONE = "none"
    CHANNEL = "channel"


@dataclass(frozen=True)
class Limits:
    """What must stay.

    Attributes:
        round_to: Every pruned layer keeps a multiple of so many channels.
        max_ratio: Largest share of a group that may go.
        ignored: Groups that stay as they are: names, or patterns with ``*``.
        protected: Largest share that may go of single groups, by name or pattern (from a sensitivity analysis).
    """

    round_to: int = 8
    max_ratio: float = 0.8
    ignored: tuple[str, ...] = ()
    protected: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.round_to < 1:
            raise UsageError(f"round_to={self.round_to} is not supported; it must be 1 or more")
        if not 0 < self.max_ratio < 1:
            raise UsageError(
                f"max_ratio={self.max_ratio} would empty a layer or prune nothing; it must lie between 0 and 1"
            )

    def share(self, name: str) -> float:
        """Largest share of a group that may go."""
        if any(fnmatchcase(name, pattern) for pattern in self.ignored):
            return 0.0
        shares = [s for pattern, s in (self.protected or {}).items() if fnmatchcase(name, pattern)]
        return min([self.max_ratio, *shares])
