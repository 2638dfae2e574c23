"""Tries recipes: prunes, trains and calibrates as each says, and scores what comes out on the held-back images."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from .. import targets as registry
from ..errors import DataError, TargetError, UsageError
from ..evaluation.latency import measure_latency, unmeasured
from ..evaluation.torch_runner import TorchRunner
from ..graph.traced_model import TracedModel
from ..io import scratch_folder
from ..pipeline import make_artifact
from ..quantization.artifact import Artifact
from ..quantization.calibration_memory import CalibrationMemory
from ..quantization.ptq import traced_once
from ..quantization.simulate import simulate
from ..recipe import Recipe, make_recipe
from ..runtime.core.runner import Runner
from ..runtime.device.processors import cpu_threads
from ..sensitivity.images import Images
from ..targets.base import Target
from ..targets.schemes import AUTO, needed_schemes
from .objectives import Objective, Scores
from .recipe_keys import Place, with_values
from .scorer import HeldBackScorer
from .search import Attempt
from .space import SearchSpace
from .studied import HeldBack
from .tune_options import TuneOptions

_HELD: dict[Place, Any] = {("calibration", "split"): "train", ("validation",): {"split": "val"}}
"""What the data without the scored split say by themselves."""
PICTURES = 4  # held-back images that latency is measured on


class TrialRecipes:
    """Tries one recipe after another, and keeps what they share.

    Args:
        space: What is searched.
        options: What is measured.
        held: The held-back images.
        folder: Where trials work; what they leave is removed.
    """

    def __init__(self, space: SearchSpace, options: TuneOptions, held: HeldBack, folder: Path) -> None:
        self.space, self.options, self.held, self.folder = space, options, held, folder
        # trials that differ in what comes after calibration share it
        self._memory = CalibrationMemory()
        self._macs: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to do the same; what was computed here stays here."""
        return {name: getattr(self, name) for name in ("space", "options", "held", "folder")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __call__(self, attempt: Attempt) -> Scores:
        """Try a recipe; see ``Evaluate``."""
        recipe = self._recipe(attempt)
        chosen = registry.with_graph(registry.resolve(recipe.targets), recipe.graph.form)
        # a trial leaves checkpoints and exports behind, of which only the chosen recipe's are made again
        with scratch_folder(self.folder / "trial") as work:
            _, artifact = make_artifact(recipe, chosen, work, after_epoch=attempt.watch, memory=self._memory)
            # an epoch costs many times what scoring does, and a few images would undo what the epochs have shown
            trains = recipe.train is not None or recipe.prune is not None
            return self._measured(artifact, chosen, 1.0 if trains else attempt.share, work)

    @cached_property
    def scorer(self) -> HeldBackScorer:
        """Scores models on the held-back images."""
        info = self._float.info
        images = Images(self.held.open(info).for_classes(info.names), info)
        return HeldBackScorer(images, TorchRunner(self._float.graph.module, info))

    @cached_property
    def _float(self) -> TracedModel:
        # any values: model, trust and input size cannot be searched, so every recipe of the space has the same
        recipe = self.space.recipe({".".join(p): d.ends[0] for p, d in self.space.dimensions.items()})
        return traced_once(recipe.model, recipe.quantize_options, self._memory)

    def check(self) -> None:
        """Refuse what cannot be measured, before any trial.

        Raises:
            UsageError: An objective needs labels, or one target that can be built and timed here.
        """
        measured = self.options.measured
        if Objective.MAP_DROP in measured and self.scorer.reference_accuracy() is None:
            raise UsageError(
                f"map_drop cannot be measured: the held-back images of '{self.held.data}' have no labels; use "
                "objective=fidelity, which needs none"
            )
        artifacts = [o.value for o in measured if o.of_artifact]
        if artifacts:
            self._check_target(artifacts)

    def _check_target(self, names: list[str]) -> None:
        wanted = self.space.base.get("targets", "all")
        chosen = registry.resolve(wanted)
        if ("targets",) in self.space.dimensions or len(chosen) != 1:
            raise UsageError(
                f"measurements of {' and '.join(names)} are of one runtime, and targets= names {len(chosen)}; "
                "give one, for instance targets=onnxruntime"
            )
        # a missing package is said now, and not by every trial
        chosen[0].require()
        note = unmeasured(chosen[0]).removeprefix("not measured here: ")
        if Objective.LATENCY.value in names and not chosen[0].capabilities.runs_here:
            note = note or "it does not run here"
        if Objective.LATENCY.value in names and note:
            raise UsageError(f"latency of '{chosen[0].wanted}' cannot be measured here: {note}; use another target")

    def _recipe(self, attempt: Attempt) -> Recipe:
        """The recipe of an attempt, on the data without the scored split, with its share of the epochs."""
        recipe = self.space.recipe(attempt.values)
        content = with_values(
            self.space.content(attempt.values),
            _HELD | {("data",): self.held.data} | _epochs(recipe, attempt.share) | _schemes(recipe),
        )
        return make_recipe(content, "trial")

    def _measured(self, artifact: Artifact, chosen: tuple[Target, ...], share: float, work: Path) -> dict[str, float]:
        scores = [self.scorer(runner, share) for runner in _runners(artifact, chosen)]
        # the worst target counts: a recipe must serve all that it names
        scores_of = {Objective.FIDELITY.value: min(s.fidelity for s in scores)}
        before = self.scorer.reference_accuracy(share)
        # of the float model on the same images: those of the whole set would compare two samples
        if before is not None:
            scores_of[Objective.MAP_DROP.value] = max(before - (s.accuracy or 0.0) for s in scores)
        elif Objective.MAP_DROP in self.options.measured:
            raise DataError("the first held-back images have no labels; give more of them: few=0.5 or held_back=128")
        if Objective.MULTIPLICATIONS in self.options.measured:
            scores_of[Objective.MULTIPLICATIONS.value] = self._multiplications(artifact)
        if any(o.of_artifact for o in self.options.measured):
            scores_of |= self._of_artifact(artifact, chosen[0], work)
        return scores_of

    def _of_artifact(self, artifact: Artifact, target: Target, work: Path) -> dict[str, float]:
        exported = target.export(artifact, work, artifact.stem)
        measured = {Objective.SIZE.value: float(exported.size_bytes)}
        if Objective.LATENCY in self.options.measured:
            data = self.scorer.images.data
            pictures = [data.read(i) for i in range(min(PICTURES, len(data)))]
            # without the float model beside it: trials are compared among each other
            timing = measure_latency(exported, None, pictures, cpu_threads())
            if timing.latency is None:
                raise TargetError(f"latency of '{target.wanted}' could not be measured: {timing.note}")
            measured[Objective.LATENCY.value] = timing.latency.median_ms
        return measured

    def _multiplications(self, artifact: Artifact) -> float:
        """Multiply-accumulate operations of one image."""
        from ..pruning.cost import CostModel
        from ..pruning.groups import find_groups
        from ..pruning.metadata import RECORD
        from ..pruning.trace_channels import trace_channels

        module = artifact.model.module
        record = getattr(module, RECORD, None)
        # of a pruned model its record has them; tracing its channels again would take seconds
        if record:
            return float(record[-1]["macs"][1])
        key = str(artifact.info.imgsz)
        if key not in self._macs:
            groups = find_groups(trace_channels(module, artifact.info.imgsz, artifact.info.channels))
            self._macs[key] = float(CostModel(groups)(groups.full()).macs)
        return self._macs[key]


def _epochs(recipe: Recipe, share: float) -> dict[Place, Any]:
    """How many epochs each training gets."""
    from ..training.prune.finetune import EPOCHS as FINE_TUNING
    from ..training.qat.qat_options import EPOCHS, parse

    wanted = {}
    if recipe.train is not None:
        wanted["train"] = recipe.train.arguments.get("epochs", EPOCHS[parse(recipe.train.qat).preset])
    if recipe.prune is not None:
        wanted["prune"] = recipe.prune.arguments.get("epochs", FINE_TUNING)
    return {(part, "arguments", "epochs"): max(1, round(share * int(epochs))) for part, epochs in wanted.items()}


def _schemes(recipe: Recipe) -> dict[Place, Any]:
    """Of all schemes those that count: each is calibrated by itself, and the targets use their own."""
    if recipe.train is not None or recipe.scheme != (AUTO,):
        return {}
    return {("scheme",): [s.name for s in needed_schemes(AUTO, registry.resolve(recipe.targets))]}


def _runners(artifact: Artifact, chosen: tuple[Target, ...]) -> list[Runner]:
    """What every target computes, simulated; targets that compute the same are one."""
    runners: dict[str, Runner] = {}
    for target in chosen:
        plan = target.plan(artifact)
        key = "float" if plan is None else plan.digest()
        if key not in runners:
            # simulated: one runtime for all, and no export, which takes longer than scoring
            module = artifact.graph.module if plan is None else simulate(artifact.graph, plan)
            runners[key] = TorchRunner(module, artifact.info)
    return list(runners.values())
