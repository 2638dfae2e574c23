"""Units of pruning: what goes together, and how many may be left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pruning_cases import ATTENTION, case

from yoloquant.errors import PruneError
from yoloquant.pruning.channel_graph import ChannelDim, ChannelGraph, Conv, Equal, Split
from yoloquant.pruning.groups import Atom, Group, find_groups


def network(*equal: tuple[tuple[int, ...], ...], unprunable: frozenset[int] = frozenset()) -> ChannelGraph:
    """Two layers: the first makes channels 1 to 8, the second reads them and makes 9 to 12."""
    first, second = tuple(range(1, 9)), tuple(range(9, 13))
    dims = [
        ChannelDim("a.conv.weight", 0, first),
        ChannelDim("b.weight", 1, first),
        ChannelDim("b.weight", 0, second),
    ]
    convs = [Conv("a.conv.weight", 1, 9, (0, 0, 0), first), Conv("b.weight", 1, 1, first, second)]
    return ChannelGraph(dims, [Equal("a", parts) for parts in equal], convs, unprunable=unprunable)


def test_channels_of_one_layer_are_one_group() -> None:
    groups = find_groups(network())
    assert [(g.name, g.count, len(g.atoms)) for g in groups.groups] == [("a", 8, 1), ("b", 4, 1)]
    assert groups.full() == {"a": 8, "b": 4}
    assert groups.owner[3] is groups["a"]
    assert len(groups) == 2


def test_parts_of_a_split_lose_their_share() -> None:
    group = find_groups(network(((1, 2, 3, 4), (5, 6, 7, 8))))["a"]
    assert group.count == 4
    assert [a.labels for a in group.atoms] == [(1, 2, 3, 4), (5, 6, 7, 8)]
    assert group.allowed(2) == (2, 4)


def test_a_split_over_two_layers_joins_them() -> None:
    groups = find_groups(network((tuple(range(1, 9)), (9, 10, 11, 12, 9, 10, 11, 12))))
    (group,) = groups.groups
    assert (group.count, [a.step for a in group.atoms]) == (4, [2, 1])


def test_an_unprunable_channel_keeps_its_group() -> None:
    assert [g.name for g in find_groups(network(unprunable=frozenset({3}))).groups] == ["b"]


def test_an_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(PruneError, match=r"no prunable layer 'model\.99'; it has a, b \.\.\."):
        find_groups(network())["model.99"]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 40), st.sampled_from([1, 2, 3, 4, 8, 16]))
def test_every_part_keeps_a_multiple(steps: list[int], count: int, round_to: int) -> None:
    group = Group("g", tuple(Atom(tuple(range(s * count)), s) for s in steps), count)
    allowed = group.allowed(round_to)
    assert list(allowed) == sorted(set(allowed))
    assert allowed[-1] == count
    possible = [n for n in range(1, count) if all(n * s % round_to == 0 for s in steps)]
    assert list(allowed[:-1]) == possible  # all of them, and none that leaves a part uneven


@pytest.mark.parametrize("family", ["yolov8", *ATTENTION])
def test_groups_partition_what_can_go(family: str) -> None:
    found = case(family)
    labels = [label for g in found.groups.groups for a in g.atoms for label in a.labels]
    assert len(labels) == len(set(labels))
    assert not found.network.unprunable.intersection(labels)
    assert all(len(a.labels) == a.step * g.count for g in found.groups.groups for a in g.atoms)


@pytest.mark.parametrize(("family", "kind"), [("yolo11", Split.KEY), ("yolo11", Split.HEAD), ("yolo12", Split.HEAD)])
def test_heads_of_attention_can_shrink(family: str, kind: Split) -> None:
    found = case(family)
    splits = [e for e in found.network.equal if e.kind is kind]
    assert splits
    assert all(label in found.groups.owner for split in splits for part in split.parts for label in part)
