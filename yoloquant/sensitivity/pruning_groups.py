"""One pruning group at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ..bridge.exportable import exportable
from ..errors import PruneError
from ..evaluation.torch_runner import TorchRunner
from ..pruning.groups import Group, find_groups
from ..pruning.importance import channel_scores, units
from ..pruning.recalibrate_bn import recalibrate_bn
from ..pruning.remove_channels import remove_channels
from ..pruning.trace_channels import trace_channels
from ..quantization.artifact import Artifact
from .analyze_options import AnalysisMetric, AnalyzeOptions
from .images import Images
from .masks import close, closed, exact
from .parts import Part, chosen
from .raw_outputs import LiveDistance
from .score import Scorer

MASK, CUT = "mask", "cut"


class PruneSubject:
    """A model whose groups are pruned alone.

    Args:
        artifact: The float model at its input size.
        images: What is measured on.
        statistics: Batches of images that BatchNorm statistics are taken from; none to keep the old ones.
        options: Criterion, ratios, metric.

    Raises:
        ModelError: The model cannot be traced.
        PruneError: The criterion lacks data, or no group can be pruned by these ratios.
        UsageError: A pattern matches no group.
    """

    def __init__(
        self, artifact: Artifact, images: Images, statistics: Sequence[torch.Tensor], options: AnalyzeOptions
    ) -> None:
        self._artifact, self._images, self._statistics, self._options = artifact, images, statistics, options
        self._module = artifact.model.module
        self._network = trace_channels(self._module, artifact.info.imgsz, artifact.info.channels)
        self._groups = find_groups(self._network)
        scores = channel_scores(
            self._module, self._groups, options.criterion, gradients=options.gradients, seed=options.seed
        )
        # least important first
        self._order, _ = units(self._groups, scores)
        self.parts = self._find_parts()
        # found once for each group, by one run of the network
        self._how: dict[str, str] = {}
        self._distance: LiveDistance | None = None
        self._scorer: Scorer | None = None
        if options.metric is AnalysisMetric.DISTILL:
            self._distance = LiveDistance(self._module, artifact.graph, images.batches)
        else:
            self._scorer = Scorer(images, options.metric, self._runner(self._module))

    def _find_parts(self) -> tuple[Part, ...]:
        names = chosen(self._groups.by_name, self._options.only, "prunable layer")
        parts = [p for n in names for p in parts_of(self._groups[n], self._options.ratios, self._options.round_to)]
        if not parts:
            widest = max((g.count for g in self._groups.groups), default=0)
            raise PruneError(
                f"round_to={self._options.round_to} leaves nothing to prune in {len(names)} layers; the widest group "
                f"of the model has {widest} units: lower round_to"
            )
        return tuple(parts)

    def baseline(self) -> float:
        """Score with nothing pruned, and new BatchNorm statistics if the others have them."""
        # a copy, since new statistics would be those of every later part
        return self._score(self._restated(copy.deepcopy(self._module)))

    def measure(self, part: Part) -> tuple[float, str]:
        """Score with one group pruned, and whether channels were closed or cut."""
        if part.name not in self._how:
            self._how[part.name] = self._way(part.name)
        how, dropped = self._how[part.name], self.dropped(part)
        # the short way: no copy, and layers before the first change are not run again
        if how == MASK and self._distance is not None and not self._statistics:
            return self._distance.closed(self._network, dropped), how
        twin = copy.deepcopy(self._module)
        # a copy: cutting changes shapes, and new statistics change the model for good
        (close if how == MASK else remove_channels)(twin, self._network, dropped)
        return self._score(self._restated(twin)), how

    def dropped(self, part: Part) -> frozenset[int]:
        """Labels of the channels that go."""
        group = self._groups[part.name]
        pruned = group.count - part.kept
        return frozenset(
            atom.labels[i]
            for atom, order in zip(group.atoms, self._order[part.name], strict=True)
            for i in order[: pruned * atom.step]
        )

    def _way(self, name: str) -> str:
        """Closing where that is exact; the sharpest cut of a group holds the channels of all the others."""
        sharpest = min((p for p in self.parts if p.name == name), key=lambda p: p.kept)
        dropped = self.dropped(sharpest)
        # on one image: whether zeros stay zeros depends on the layers, not on what they see
        with closed(self._module, self._network, dropped):
            return MASK if exact(self._module, self._network, dropped, self._images.batches[0][:1]) else CUT

    def _restated(self, module: nn.Module) -> nn.Module:
        if self._statistics:
            recalibrate_bn(module, self._statistics)
        return module

    def _score(self, module: nn.Module) -> float:
        if self._distance is not None:
            return self._distance(module)
        assert self._scorer is not None
        return self._scorer(self._runner(module))

    def _runner(self, module: nn.Module) -> TorchRunner:
        info = self._artifact.info
        return TorchRunner(exportable(replace(self._artifact.model, module=module), info), info)  # type: ignore[arg-type]


def parts_of(group: Group, ratios: Sequence[float], round_to: int) -> list[Part]:
    """The prunings of one group that come nearest to some ratios; none if it cannot be pruned."""
    allowed = [n for n in group.allowed(round_to) if n < group.count]
    asked: dict[int, list[float]] = {}
    for ratio in ratios:
        units = group.count * (1 - ratio)
        if allowed:
            # the nearest that rounding allows, the milder one of two; ratios that come to the same are measured once
            asked.setdefault(min(allowed, key=lambda n: (abs(n - units), -n)), []).append(ratio)
    return [Part(group.name, 1 - n / group.count, tuple(r), n) for n, r in sorted(asked.items(), reverse=True)]
