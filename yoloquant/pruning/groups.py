"""The units of pruning: which channels can be removed, and what must go with them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..errors import PruneError
from .channel_graph import ChannelGraph, Equal


@dataclass(frozen=True)
class Atom:
    """Channels of one group that are alike: the same layers read and write every one of them.

    Attributes:
        labels: Their labels, in the order of the layer that makes them.
        step: How many of them one unit of the group takes.
    """

    labels: tuple[int, ...]
    step: int


@dataclass(frozen=True)
class Group:
    """Channels that are pruned together.

    Attributes:
        name: Path of the layer that makes them.
        atoms: Several where code splits a tensor evenly: every part must lose its share.
        count: How many units can be told apart; removing one takes ``step`` channels of every atom.
    """

    name: str
    atoms: tuple[Atom, ...]
    count: int

    def quantum(self, round_to: int) -> int:
        """Units that must go at once so that every part keeps a multiple of ``round_to`` channels."""
        # an atom of step s loses s channels a unit, so it stays a multiple of round_to every round_to / gcd units
        return math.lcm(*(round_to // math.gcd(round_to, a.step) for a in self.atoms))

    def allowed(self, round_to: int) -> tuple[int, ...]:
        """Numbers of units that may be left, ascending; always with all of them."""
        quantum = self.quantum(round_to)
        return (*(n for n in range(quantum, self.count, quantum)), self.count)


@dataclass(frozen=True)
class Groups:
    """Every group of a network, in the order of execution, and what each costs."""

    network: ChannelGraph
    groups: tuple[Group, ...]

    def __iter__(self) -> Iterable[Group]:  # type: ignore[override]
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, name: str) -> Group:
        group = self.by_name.get(name)
        if group is None:
            known = ", ".join(list(self.by_name)[:6])
            raise PruneError(f"the model has no prunable layer '{name}'; it has {known} ... (yoloquant prune dry-run)")
        return group

    @cached_property
    def by_name(self) -> dict[str, Group]:
        """Groups by name."""
        return {g.name: g for g in self.groups}

    @cached_property
    def owner(self) -> dict[int, Group]:
        """The group of every prunable label."""
        return {label: g for g in self.groups for a in g.atoms for label in a.labels}

    def full(self) -> dict[str, int]:
        """Units of every group before pruning."""
        return {g.name: g.count for g in self.groups}


def find_groups(network: ChannelGraph) -> Groups:
    """Sort channels into groups.

    Channels that the same layers make and read are one group. Groups that share a tensor which code splits evenly are
    joined: removing a fixed share of each keeps every part equal to the others. Groups that must stay are left out.
    """
    kinds = _kinds(network)
    # labels on exactly the same axes cannot be told apart by any layer: they are one kind
    joined = _join(kinds, network.equal)
    parts = _memberships(network.equal)
    makers = _makers(network)
    groups: list[tuple[int, Group]] = []
    names: Counter[str] = Counter()
    # by the smallest label, so that names and order are the same in every run
    for labels in sorted(joined, key=min):
        # one channel that must stay keeps the whole group: its kind could not be cut evenly
        if network.unprunable.intersection(labels):
            continue
        atoms: dict[object, list[int]] = defaultdict(list)
        for label in sorted(labels):
            atoms[kinds[label], parts.get(label, ())].append(label)
        # as fine as all atoms can lose the same share
        count = math.gcd(*(len(a) for a in atoms.values()))
        order, name = min(makers[label] for label in labels if label in makers)
        names[name] += 1
        if names[name] > 1:
            # one layer can make several groups, for instance the two halves that a block splits
            name = f"{name}#{names[name]}"
        groups.append((order, Group(name, tuple(Atom(tuple(a), len(a) // count) for a in atoms.values()), count)))
    return Groups(network, tuple(g for _, g in sorted(groups, key=lambda pair: pair[0])))


def _kinds(network: ChannelGraph) -> dict[int, frozenset[tuple[str, int, int]]]:
    """For every label the parameter axes that it appears on, and how often."""
    counts_of: dict[int, Counter[tuple[str, int]]] = defaultdict(Counter)
    for member in network.dims:
        for label in member.labels:
            if label:
                counts_of[label][member.parameter, member.axis] += 1
    return {label: frozenset((*where, n) for where, n in counts.items()) for label, counts in counts_of.items()}


def _join(kinds: Mapping[int, object], equal: Iterable[Equal]) -> list[set[int]]:
    by_kind: dict[object, set[int]] = defaultdict(set)
    for label, kind in kinds.items():
        by_kind[kind].add(label)
    owner = {label: group for group in by_kind.values() for label in group}
    # transitive: a group that two constraints touch joins all that either touches
    for constraint in equal:
        merged: set[int] = set()
        for label in {v for part in constraint.parts for v in part if v in owner}:
            merged |= owner[label]
        for label in merged:
            owner[label] = merged
    return list({id(g): g for g in owner.values()}.values())


def _memberships(equal: Iterable[Equal]) -> dict[int, tuple[tuple[int, int, int], ...]]:
    memberships: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
    for number, constraint in enumerate(equal):
        for index, part in enumerate(constraint.parts):
            for label in part:
                memberships[label][number, index] += 1
    return {label: tuple(sorted((*k, n) for k, n in counts.items())) for label, counts in memberships.items()}


def _makers(network: ChannelGraph) -> dict[int, tuple[int, str]]:
    """The layer that makes each label, with its place in the order of execution."""
    makers: dict[int, tuple[int, str]] = {}
    for order, conv in enumerate(network.convs):
        name = conv.parameter.removesuffix(".weight").removesuffix(".conv")
        for label in conv.writes:
            if label:
                # the first layer in the order of execution; later ones only pass on what it made
                makers.setdefault(label, (order, name))
    return makers
