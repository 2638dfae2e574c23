"""Everything that is judged: how the FP32 model and its artifacts are opened, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..bridge.foreign import ForeignArtifact
from ..bridge.host_model import weights_sha256
from ..quantization.artifact import Artifact
from ..targets.base import FLOAT, FP32
from ..targets.exports import content_sha256
from ..targets.graph_form import form_of
from ..types import ExportedModel, ModelInfo, Progress
from .checkpoint_opening import CheckpointOpening
from .contenders import UNKNOWN_CALIBRATION
from .kept_predictions import KeptPredictions, of_export, of_network
from .lineage import quantized_weights
from .memory import peak_memory
from .openings import Opening
from .processors import NATIVE, launch
from .validate_options import ValidateOptions

if TYPE_CHECKING:
    import numpy as np

    from ..cache import Key, Store
    from ..predictions.prediction_set import RecordedModel
    from ..runtime.core.runner import Runner
    from .evaluate import Evaluation
    from .verdict import ArtifactInfo

BASELINE = "fp32"
PICTURES = 4  # scored images that latency is measured on
FloatModel = Callable[[Artifact, ExportedModel], "ExportedModel | None"]
"""Gives the float model, whose artifact is the first argument, in the runtime of another artifact."""


def exported_info(exported: ExportedModel, elsewhere: str = "") -> ArtifactInfo:
    """Say of an export what its listing, its target and its file tell.

    Args:
        exported: The export.
        elsewhere: The processor that it runs on; empty for this one.
    """
    from .. import targets
    from .verdict import ArtifactInfo

    return ArtifactInfo(
        path=exported.path.name,
        scheme=exported.scheme,
        size_bytes=exported.size_bytes,
        notes=exported.notes,
        simulated=not targets.get(exported.target).capabilities.runs_here,
        elsewhere=elsewhere,
        target=exported.name,
        sha256=content_sha256(exported.path),
        weights=quantized_weights(exported.metadata),
    )


class JudgedModels:
    """The FP32 model and its artifacts, with what is known of them; the pass over the images opens them.

    Args:
        artifact: The FP32 model.
        threads: Threads of every runtime.
        options: What is measured.
        float_model: See ``validate``.
        known: What models found before.
    """

    def __init__(
        self,
        artifact: Artifact,
        threads: int,
        options: ValidateOptions,
        float_model: FloatModel | None,
        known: KeptPredictions,
    ) -> None:
        from .verdict import ArtifactInfo

        self.artifact, self.threads, self.options, self.float_model = artifact, threads, options, float_model
        host = artifact.model
        self.facts: dict[str, ArtifactInfo] = {
            BASELINE: ArtifactInfo(
                # a derived model that stands for a missing original is named as itself, so that nobody takes it for the
                # original
                path=Path(host.source).name if host.derived else host.origin.name,
                sha256=host.sha256 if host.derived else host.origin.sha256,
                weights=weights_sha256(host.module),
                # not the file's size: Ultralytics saves half precision, and size ratios would be half of what they are
                size_bytes=_float_bytes(artifact),
                latency_note="not measured: targets are timed against FP32 in their own runtime",
            )
        }
        self.known = known
        self.openings: dict[str, Opening] = {}
        self.recorded: dict[str, RecordedModel] = {}
        self._keys: dict[str, tuple[Key | None, ModelInfo]] = {}
        self.exports: dict[str, ExportedModel] = {}

    def add_baseline(self) -> None:
        """Add the FP32 model, where its results were not recorded before."""
        from .torch_runner import TorchRunner

        if self._recall(BASELINE, of_network(self.artifact.model, self.artifact.info), self.artifact.info):
            return
        graph = self.artifact.graph
        self.openings[BASELINE] = partial(TorchRunner, graph.module, self.artifact.info, self.threads)

    def add(self, name: str, exported: ExportedModel, processor: str = NATIVE) -> None:
        """Add one artifact, for this processor or another one."""
        self.exports[name] = exported
        self.facts[name] = exported_info(exported, "" if processor == NATIVE else processor)
        key = of_export(exported, self.facts[name].sha256) if processor == NATIVE else None
        if self._recall(name, key, exported.info):
            return
        root = self.options.cpu_root or ""
        self.openings[name] = partial(_open_export, exported, processor, root, self.threads, self.known.store)

    def _recall(self, name: str, key: Key | None, info: ModelInfo) -> bool:
        """Take what a model found before; it need not be opened then."""
        found, self._keys[name] = self.known.read(key), (key, info)
        if found is not None:
            self.recorded[name] = found
        return found is not None

    def keep(self, evaluation: Evaluation) -> None:
        """Keep what was found by the models that ran and got through."""
        for name, (key, info) in self._keys.items():
            if name in self.openings and name in evaluation.records:
                self.known.write(key, info, name, evaluation)

    def add_foreign(self, name: str, foreign: ForeignArtifact) -> None:
        """Add what others made, which is opened as they open it."""
        from .verdict import ArtifactInfo

        made = f"made by {foreign.maker}" + (f", {foreign.precision}" if foreign.precision else "")
        self.facts[name] = ArtifactInfo(
            path=foreign.path.name,
            scheme="foreign",
            size_bytes=foreign.size_bytes,
            notes=(f"{UNKNOWN_CALIBRATION}; {made}, opened by Ultralytics' own backend",),
            sha256=content_sha256(foreign.path),
            latency_note="foreign artifacts are not timed",
        )
        self.openings[name] = partial(foreign.open, self.threads)

    def add_checkpoint(self, name: str, path: Path) -> None:
        """Add another checkpoint's float model, run in PyTorch."""
        from .verdict import ArtifactInfo

        self.facts[name] = ArtifactInfo(
            path=path.name,
            scheme="checkpoint",
            size_bytes=path.stat().st_size,
            notes=("the float model of another checkpoint",),
            sha256=content_sha256(path),
            latency_note="checkpoints are not timed",
        )
        self.openings[name] = CheckpointOpening(path, self.artifact.info, self.threads)

    def note(self, errors: Mapping[str, str]) -> None:
        """Note why some could not be opened: each is a row with its error, never a pass and never a missing row."""
        self.facts.update((name, replace(self.facts[name], error=text)) for name, text in errors.items())

    def measure(self, evaluation: Evaluation, progress: Progress | None) -> None:
        """Measure memory and latency of everything that got through, once nothing else is loaded."""
        count = min(PICTURES, len(evaluation.data))
        pictures = [evaluation.data.read(index) for index in range(count)]
        measured = [name for name in self.exports if name in evaluation.records]
        word = "timing" if self.options.latency else "memory of"
        for index, name in enumerate(measured):
            # a float model may have to be converted first, which can take minutes
            if progress is not None and (self.options.latency or self.options.memory):
                progress(index, len(measured), f"{word} {name}")
            self.facts[name] = self._measured(self.facts[name], self.exports[name], pictures)

    def _measured(self, facts: ArtifactInfo, exported: ExportedModel, pictures: list[np.ndarray]) -> ArtifactInfo:
        from .. import targets
        from .latency import measure_latency, unmeasured

        target = targets.get(exported.target)
        # an emulated process' memory is the emulator's, and that of a simulated target another runtime's
        if self.options.memory and target.capabilities.runs_here and not facts.elsewhere:
            facts = replace(facts, peak_memory_bytes=peak_memory(exported, self.threads))
        note = f"not measured here: it is for {facts.elsewhere}" if facts.elsewhere else unmeasured(target)
        if not note and not self.options.latency:
            note = (
                "it was switched off (latency=false); measure it, or take latency_ratio out of the gate with "
                "'latency_ratio: null'"
            )
        if note:
            return replace(facts, latency_note=note)
        reference = None if self.float_model is None else self.float_model(self.artifact, exported)
        timing = measure_latency(exported, reference, pictures, self.threads, others=self._other_floats(exported))
        if timing.against not in {"", FP32}:
            notes = (*facts.notes, f"its latency is held against {exported.target}:{timing.against}, the fastest float")
            facts = replace(facts, notes=notes)
        return replace(facts, latency=timing.latency, latency_ratio=timing.ratio, latency_note=timing.note)

    def _other_floats(self, exported: ExportedModel) -> list[ExportedModel]:
        """What is judged beside a quantized artifact in other float precisions of its runtime, in the same form."""
        if exported.precision in FLOAT:
            return []
        here = (other for name, other in self.exports.items() if not self.facts[name].elsewhere)
        others = (other for other in here if other.target == exported.target and other.precision in FLOAT - {FP32})
        return [other for other in others if form_of(other) == form_of(exported)]


def _open_export(
    exported: ExportedModel, processor: str, root: str | Path, threads: int, store: Store | None
) -> Runner:
    """Open an artifact, here or on another processor."""
    from .. import targets
    from .emulated_runner import EmulatedRunner

    target = targets.get(exported.target)
    # here and not for all at once: an absent runtime is an error of its own row, and the others are judged
    target.require()
    if processor == NATIVE:
        target.store = store
        return target.load(exported, threads)
    return EmulatedRunner(exported, target.backend, launch(processor, target.backend, root=root), threads)


def _float_bytes(artifact: Artifact) -> int:
    """Size of the weights in float32, whatever the checkpoint stores."""
    return sum(4 * p.numel() for p in artifact.model.module.parameters())
