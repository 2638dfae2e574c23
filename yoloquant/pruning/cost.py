"""What a network costs when some units are gone: multiplications and parameters, without building it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .groups import Groups


@dataclass(frozen=True)
class Cost:
    """Size of a network.

    Attributes:
        macs: Multiply-accumulate operations of one image; Ultralytics' GFLOPs are twice these.
        parameters: Trainable numbers.
    """

    macs: int
    parameters: int


@dataclass(frozen=True)
class _Width:
    """A number of channels as a function of the units that are left: ``fixed + sum(share * units)``."""

    fixed: int
    shares: tuple[tuple[str, int], ...]

    def __call__(self, kept: Mapping[str, int]) -> int:
        return self.fixed + sum(share * kept[name] for name, share in self.shares)


@dataclass(frozen=True)
class LayerCost:
    """One layer before and after.

    Attributes:
        name: Path of the layer.
        inputs: Input channels before and after.
        outputs: Output channels before and after.
        macs: Multiplications before and after.
        parameters: Weights before and after.
        weight: Name of its weight.
        ms: Milliseconds before and after in a runtime, where known.
    """

    name: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    macs: tuple[int, int]
    parameters: tuple[int, int] = (0, 0)
    weight: str = ""
    ms: tuple[float, float] | None = None


class CostModel:
    """Costs as a function of how many units of each group are left.

    Args:
        groups: Of the network.
        extra: Parameters that no channel belongs to.
    """

    def __init__(self, groups: Groups, extra: int = 0) -> None:
        self.groups, self._extra = groups, extra
        network = groups.network
        self._convs = [(c, self._width(c.reads), self._width(c.writes)) for c in network.convs]
        self._matmuls = [(m.factor, self._width(m.reads)) for m in network.matmuls]
        self._tensors = self._parameter_widths()

    def _width(self, labels: Sequence[int]) -> _Width:
        counts: Counter[str] = Counter()
        fixed = 0
        for label in labels:
            group = self.groups.owner.get(label)
            if group is None:
                fixed += 1
            else:
                counts[group.name] += 1
        # a layer may hold a group's channels several times, and several of them go with each unit
        return _Width(fixed, tuple((n, c // self.groups.by_name[n].count) for n, c in counts.items()))

    def _parameter_widths(self) -> list[tuple[int, tuple[_Width, ...]]]:
        axes: dict[str, dict[int, _Width]] = {}
        for member in self.groups.network.dims:
            axes.setdefault(member.parameter, {})[member.axis] = self._width(member.labels)
        kernels = {c.parameter: c.kernel for c in self.groups.network.convs}
        # buffers are no parameters in anybody's count
        trained = {n: a for n, a in axes.items() if not n.endswith(("running_mean", "running_var"))}
        return [(kernels.get(name, 1), tuple(widths.values())) for name, widths in trained.items()]

    def __call__(self, kept: Mapping[str, int]) -> Cost:
        """The cost with these numbers of units left in each group."""
        macs = sum(self._conv(c, i, o, kept) for c, i, o in self._convs)
        macs += sum(factor * width(kept) for factor, width in self._matmuls)
        parameters = self._extra
        for kernel, widths in self._tensors:
            size = kernel
            for width in widths:
                size *= width(kept)
            parameters += size
        return Cost(macs, parameters)

    def layers(self, kept: Mapping[str, int]) -> tuple[LayerCost, ...]:
        """Every layer before and after, in the order of execution."""
        full = self.groups.full()
        return tuple(
            LayerCost(
                c.parameter.removesuffix(".weight").removesuffix(".conv"),
                (i(full), i(kept)),
                (o(full), o(kept)),
                (self._conv(c, i, o, full), self._conv(c, i, o, kept)),
                # Multiplications at one position are the layer's weights.
                (self._conv(c, i, o, full) // c.positions, self._conv(c, i, o, kept) // c.positions),
                c.parameter,
            )
            for c, i, o in self._convs
        )

    @staticmethod
    def _conv(conv, inputs: _Width, outputs: _Width, kept: Mapping[str, int]) -> int:  # type: ignore[no-untyped-def]
        # An output of a depthwise layer reads one channel, however many are left.
        return int(conv.positions * conv.kernel * outputs(kept) * (1 if conv.depthwise else inputs(kept)))
