"""What a pruned model remembers of the model that it was, as plain data: its checkpoint loads without this package."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from .channel_graph import ChannelGraph
from .cost import Cost
from .groups import Groups
from .plan import PrunePlan

RECORD = "yoloquant_pruned"  # attribute of a pruned module: a list, one entry for each time that something was removed
_NORM = ".bn"
_NOT_REBUILT = (
    "this model is pruned: its shapes are not those of its yaml, and training with plain Ultralytics would rebuild it "
    "unpruned. Train it with yoloquant train model=... or trainer=yoloquant.PruneTrainer"
)


def is_pruned(module: nn.Module) -> bool:
    """Whether channels or blocks of a live model were removed by this package."""
    return bool(getattr(module, RECORD, None))


def pruned_fraction(module: nn.Module) -> float:
    """Share of the multiplications of the unpruned model that a pruned one lacks."""
    record = getattr(module, RECORD)
    # the first entry's "before" is the unpruned model, the last one's "after" this one
    return 1.0 - float(record[-1]["macs"][1]) / float(record[0]["macs"][0])


def unpruned_cost(module: nn.Module) -> Cost | None:
    """Cost of the model that a pruned one was; None for one that was never pruned."""
    record = getattr(module, RECORD, None)
    return Cost(int(record[0]["macs"][0]), int(record[0]["parameters"][0])) if record else None


def entry(plan: PrunePlan, groups: Groups, network: ChannelGraph) -> dict[str, Any]:
    """What to remember of channels that a plan takes away.

    Args:
        plan: What goes.
        groups: The groups of the model before.
        network: Its channels.
    """
    return {
        "settings": json.loads(json.dumps(dict(plan.settings))),
        "imgsz": list(plan.imgsz),
        "macs": [plan.before.macs, plan.after.macs],
        "parameters": [plan.before.parameters, plan.after.parameters],
        "groups": {e.group: [e.before, e.after] for e in plan.entries if e.after != e.before},
        "channels": _surviving(network, plan.dropped(groups)),
    }


def _surviving(network: ChannelGraph, dropped: frozenset[int]) -> dict[str, dict[str, Any]]:
    """By block of convolution and BatchNorm that loses channels, how many it had and the positions that stay."""
    surviving = {}
    for member in network.dims:
        path, _, name = member.parameter.rpartition(".")
        if name == "weight" and path.endswith(_NORM) and not dropped.isdisjoint(member.labels):
            kept = [i for i, label in enumerate(member.labels) if label not in dropped]
            surviving[path.removesuffix(_NORM)] = {"of": len(member.labels), "kept": kept}
    return surviving


def kept_channels(module: nn.Module) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Which channels of the unpruned model a model still has, after all prunings together.

    Args:
        module: A live, unfused model; one that was never pruned has all of them.

    Returns:
        By path of each block of convolution and BatchNorm: how many channels it had, and the positions of those that
        are left. Blocks whose history is not known are missing: of models that were pruned before this was recorded,
        and beside residual blocks that were taken out, since those that follow have other numbers now.
    """
    norms = {p: m for p, m in module.named_modules() if p.endswith(_NORM) and isinstance(m, nn.BatchNorm2d)}
    channels = {p.removesuffix(_NORM): (m.num_features, tuple(range(m.num_features))) for p, m in norms.items()}
    for record in reversed(getattr(module, RECORD, [])):
        # taking a block out renumbers those behind it
        if "blocks" in record:
            beside = tuple(path.rpartition(".")[0] + "." for path in record["blocks"])
            channels = {path: v for path, v in channels.items() if not path.startswith(beside)}
        elif "channels" not in record:
            return {}
        else:
            for path, known in record["channels"].items():
                if path in channels:
                    channels[path] = int(known["of"]), tuple(int(known["kept"][i]) for i in channels[path][1])
    return channels


def mark_yaml(module: Any) -> None:
    """Let plain Ultralytics fail with the reason, instead of silently rebuilding the unpruned model from its yaml."""
    layout = dict(getattr(module, "yaml", None) or {})
    # Ultralytics looks the first module's name up, fails on this text, and shows it
    if layout.get("backbone") and layout["backbone"][0][2] != _NOT_REBUILT:
        layout["unpruned_backbone"] = layout["backbone"]
        layout["backbone"] = [[-1, 1, _NOT_REBUILT, []]]
        module.yaml = layout
