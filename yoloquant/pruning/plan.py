"""A pruning plan: frozen data that can be printed, saved, edited and applied."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PruneError
from ..io import write_text
from .cost import Cost, LayerCost
from .groups import Group, Groups

FORMAT = 1


@dataclass(frozen=True)
class GroupDecision:
    """What becomes of one group.

    Attributes:
        group: Its name: the path of the layer that makes the channels.
        before: Units it has.
        after: Units that are left; the number to edit.
        order: Channel positions of each of the group's atoms, least important first; the first ones go.
    """

    group: str
    before: int
    after: int
    order: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PrunePlan:
    """Which channels go.

    Attributes:
        entries: Every group.
        imgsz: Input height and width in pixels at which multiplications were counted.
        before: Cost of the model.
        after: Cost of what the plan leaves.
        settings: How the plan was made (criterion, target, round_to ...).
        layers: Every layer before and after.
        latency: Predicted or measured milliseconds before and after by runtime, where known.
    """

    entries: tuple[GroupDecision, ...]
    imgsz: tuple[int, int]
    before: Cost
    after: Cost
    settings: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[LayerCost, ...] = ()
    latency: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, int]:
        """Units left in every group."""
        return {e.group: e.after for e in self.entries}

    def dropped(self, groups: Groups) -> frozenset[int]:
        """Labels of the channels that go.

        Raises:
            PruneError: The plan was made for another model, or was edited into something impossible.
        """
        # Names first and numbers behind: among names as a set, one that comes twice would not be seen.
        if {e.group for e in self.entries} != set(groups.by_name):
            other = sorted({e.group for e in self.entries} ^ set(groups.by_name))
            raise PruneError(f"the plan was made for another model: '{other[0]}' is only in one of them; plan it anew")
        if len(self.entries) != len(groups):
            twice = next(e.group for i, e in enumerate(self.entries) if e.group in {f.group for f in self.entries[:i]})
            raise PruneError(f"the plan names '{twice}' twice; keep one of its entries")
        dropped: set[int] = set()
        for entry in self.entries:
            dropped |= _dropped(entry, groups[entry.group])
        return frozenset(dropped)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": FORMAT,
            "imgsz": list(self.imgsz),
            "settings": dict(self.settings),
            "before": vars(self.before),
            "after": vars(self.after),
            "latency_ms": {k: list(v) for k, v in self.latency.items()},
            "groups": [
                {"group": e.group, "before": e.before, "after": e.after, "order": [list(o) for o in e.order]}
                for e in self.entries
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the plan as JSON; ``after`` of a group is meant to be edited."""
        path = Path(path)
        lines = json.dumps(self.to_dict(), indent=None, separators=(", ", ": "))
        # A line for each group, since this file is meant for an editor.
        write_text(path, lines.replace('{"group"', '\n  {"group"'))
        return path

    @classmethod
    def from_dict(cls, data: Any) -> PrunePlan:
        """Read plain data; costs and layers are those of the file until it is applied.

        Raises:
            PruneError: It is no such plan.
        """
        try:
            if data["format"] != FORMAT:
                raise PruneError(f"the plan has format {data['format']}; this release reads {FORMAT}")
            entries = tuple(
                GroupDecision(
                    str(e["group"]), int(e["before"]), int(e["after"]), tuple(tuple(map(int, o)) for o in e["order"])
                )
                for e in data["groups"]
            )
            height, width = (int(v) for v in data["imgsz"])
            before, after = (Cost(int(c["macs"]), int(c["parameters"])) for c in (data["before"], data["after"]))
            latency = {str(k): (float(a), float(b)) for k, (a, b) in data.get("latency_ms", {}).items()}
            return cls(entries, (height, width), before, after, dict(data["settings"]), latency=latency)
        # OverflowError: JSON may hold 1e999, which is no integer.
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise PruneError(f"this is no pruning plan ({exc!r}); make one with yoloquant prune dry-run=true") from exc

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PrunePlan:
        """Read a saved plan.

        Raises:
            PruneError: The file is missing or no such plan.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as exc:
            raise PruneError(
                f"the plan '{path}' cannot be read ({exc}); make one with yoloquant prune dry-run=true"
            ) from exc
        return cls.from_dict(data)

    def __str__(self) -> str:
        return "\n".join(self.table())

    def table(self) -> list[str]:
        """Lines for people: every layer that changes, and the sums."""
        timed = any(layer.ms for layer in self.layers)
        # Milliseconds only where a runtime has told any.
        rows = [("layer", "inputs", "outputs", "weights", "MMACs", *(["ms"] * timed))]
        rows += [
            (
                layer.name,
                _arrow(*layer.inputs),
                _arrow(*layer.outputs),
                _arrow(*layer.parameters),
                f"{layer.macs[0] / 1e6:.1f} -> {layer.macs[1] / 1e6:.1f}",
                *([f"{layer.ms[0]:.3f} -> {layer.ms[1]:.3f}" if layer.ms else ""] * timed),
            )
            for layer in self.layers
            if layer.inputs[0] != layer.inputs[1] or layer.outputs[0] != layer.outputs[1]
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return [*lines, *self.summary()]

    def summary(self) -> list[str]:
        """The sums."""
        lines = [
            f"multiply-accumulates {self.before.macs / 1e9:.3f} G -> {self.after.macs / 1e9:.3f} G "
            f"({self.after.macs / self.before.macs - 1:+.1%}) at {self.imgsz[0]}x{self.imgsz[1]}",
            f"parameters {self.before.parameters / 1e6:.3f} M -> {self.after.parameters / 1e6:.3f} M "
            f"({self.after.parameters / self.before.parameters - 1:+.1%})",
        ]
        return lines + [
            f"latency in {name} {a:.2f} ms -> {b:.2f} ms ({b / a - 1:+.1%})" for name, (a, b) in self.latency.items()
        ]


def _arrow(before: int, after: int) -> str:
    return str(before) if before == after else f"{before} -> {after}"


def _dropped(entry: GroupDecision, group: Group) -> set[int]:
    sizes = [len(a.labels) for a in group.atoms]
    if entry.before != group.count or [len(o) for o in entry.order] != sizes:
        raise PruneError(
            f"the plan was made for another model: '{group.name}' has {group.count} units, and {entry.before} in the "
            "plan, or they are other channels; plan it anew"
        )
    # An order that was edited could name a channel twice, and another one would stay unseen.
    if any(sorted(o) != list(range(n)) for o, n in zip(entry.order, sizes, strict=True)):
        raise PruneError(f"the order of '{group.name}' in the plan does not name each of its channels once")
    if not 1 <= entry.after <= group.count:
        raise PruneError(
            f"the plan leaves {entry.after} of {group.count} units in '{group.name}'; allowed are 1 to {group.count}: "
            "a layer cannot be emptied"
        )
    pruned = group.count - entry.after
    return {
        atom.labels[i]
        for atom, order in zip(group.atoms, entry.order, strict=True)
        for i in order[: pruned * atom.step]
    }
