"""When weights become zero: a schedule that prunes fast at first and slowly at the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UsageError
from .unstructured import check_amount


@dataclass(frozen=True)
class Schedule:
    """The cubic schedule of Zhu and Gupta (arXiv 1710.01878, equation 1).

    Between ``start`` and ``end`` it is ``amount + (initial - amount) * (1 - (step - start) / (end - start))³``. It
    changes at ``start``, then every ``every`` steps, and at ``end``.

    Attributes:
        amount: Sparsity at the end, a share.
        start: Step at which pruning begins; before it nothing is masked.
        end: Step from which ``amount`` holds.
        every: Steps between two changes.
        initial: Sparsity at ``start``.
    """

    amount: float
    start: int = 0
    end: int = 0
    every: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        check_amount(self.amount)
        check_amount(self.initial)
        if self.initial > self.amount:
            raise UsageError(f"initial={self.initial} is more than amount={self.amount}; sparsity only grows")
        for name in ("start", "end", "every"):
            value = getattr(self, name)
            # For Python True is a number, too.
            if isinstance(value, bool) or not isinstance(value, int):
                raise UsageError(f"{name}={value!r} is not supported; it counts steps, a whole number")
        if not 0 <= self.start <= self.end:
            raise UsageError(f"start={self.start}, end={self.end} is not supported; 0 <= start <= end must hold")
        if self.every < 1:
            raise UsageError(f"every={self.every} is not supported; it must be 1 or more")

    @classmethod
    def over(cls, steps: int, amount: float, *, initial: float = 0.0, changes: int = 50) -> Schedule:
        """A schedule for a run: it ends after three quarters of the steps, so that the rest heals what it cost.

        Args:
            steps: Optimizer steps of the whole run.
            amount: Sparsity at the end.
            initial: Sparsity at the first step.
            changes: About how often the sparsity changes.

        Returns:
            The schedule.
        """
        if steps < 1:
            raise UsageError(f"steps={steps} is not supported; a run has 1 or more")
        end = steps * 3 // 4
        return cls(amount, 0, end, max(end // max(changes, 1), 1), initial)

    def at(self, step: int) -> float:
        """Sparsity that holds at a step."""
        if step < self.start:
            return 0.0
        if step >= self.end:
            return self.amount
        # between two changes the sparsity of the last one holds
        changed = self.start + (step - self.start) // self.every * self.every
        left = 1.0 - (changed - self.start) / (self.end - self.start)
        # The power may round beyond the end.
        return min(self.amount + (self.initial - self.amount) * left**3, self.amount)

    def changes_at(self, step: int) -> bool:
        """Whether the sparsity is to be set anew at a step."""
        return self.start <= step <= self.end and (step == self.end or (step - self.start) % self.every == 0)

    def done(self, step: int) -> bool:
        """Whether the final sparsity holds from a step on."""
        return step >= self.end

    def to_plain(self) -> dict[str, Any]:
        """Plain data for checkpoints."""
        return asdict(self)
