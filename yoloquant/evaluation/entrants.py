"""What stands behind ``old=`` and ``new=``: models that run here, or results that were recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..bridge.checkpoint import load_model
from ..bridge.foreign import ForeignArtifact
from ..bridge.host_model import weights_sha256
from ..cache import Key, Store
from ..data.dataset import ValidationSet
from ..errors import DataError, UsageError
from ..graph.traced_model import TracedModel
from ..predictions.prediction_options import ReadingChoices
from ..predictions.prediction_set import RecordedModel
from ..predictions.read import FORMS, read_predictions
from ..predictions.results_file import ResultsFile, is_results_file
from ..runtime.core.folder_check import file_sha256
from ..runtime.core.runner import Runner
from ..targets.exports import content_sha256
from ..types import ExportedModel, ModelInfo
from .contenders import contenders, named_rows, path_names
from .fetch import fetch, is_address
from .judged_models import exported_info
from .kept_predictions import of_export, of_network
from .recorded_files import prediction_info, reading_options
from .results import RESULTS
from .verdict import ArtifactInfo


@dataclass(frozen=True)
class ComparedImages:
    """What is compared on.

    Attributes:
        everything: All images of the data.
        scored: Those that count, the first of them.
        info: Task, classes and input size that both sides have.
    """

    everything: ValidationSet
    scored: ValidationSet
    info: ModelInfo


@dataclass(frozen=True)
class Entrant:
    """One model of one side.

    Attributes:
        name: Its row; what the other side's is matched by.
        open: Loads it for the images, or reads its results.
        facts: What is known of it.
        info: What it is; None if its file does not say.
        exported: The artifact, where it is one of ours that can be timed here.
        made: What the report said of the images, where results were recorded.
        count: How many images they were recorded on.
        key: What decides what it finds in the images; None where it is read, or where that cannot be said.
        runs: Whether it runs here, and is not read.
    """

    name: str
    open: Callable[[ComparedImages], tuple[Runner | RecordedModel, ArtifactInfo]]
    facts: ArtifactInfo
    info: ModelInfo | None = None
    exported: ExportedModel | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    count: int | None = None
    key: Callable[[ComparedImages], Key | None] = lambda images: None
    runs: bool = False


def entrants(text: str, choices: ReadingChoices, threads: int, store: Store | None) -> tuple[Entrant, ...]:
    """Every model that a path stands for.

    Args:
        text: See ``release_options.WHAT``.
        choices: How files of predictions are read.
        threads: Threads of every runtime.
        store: Where targets keep what took long to simulate.

    Raises:
        YoloquantError: It is missing, damaged, or nothing of this kind.
    """
    path = fetch(text) if is_address(text) else Path(text)
    inside = path / RESULTS
    if inside.is_file():
        return _stored(inside)
    if path.name == "report.json" and (path.parent / RESULTS).is_file():
        # Named by its JSON, which is what people find in a report's folder first.
        return _stored(path.parent / RESULTS)
    if path.suffix == ".npz" and is_results_file(path):
        return _stored(path)
    if path.suffix.lower() in FORMS:
        return (_predicted(path, choices),)
    return _models(text, threads, store)


def _stored(path: Path) -> tuple[Entrant, ...]:
    file = ResultsFile(path)
    rows = file.header.rows[1:] or file.header.rows  # the first is what they were held against

    def entrant(name: str) -> Entrant:
        row = file.row(name)
        facts = ArtifactInfo(
            path=row.path or path.name,
            scheme=row.scheme,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            weights=row.weights,
            notes=(f"its results were recorded in '{path.name}'",),
            latency_note="recorded results are not timed",
        )
        header = file.header
        return Entrant(
            name,
            lambda images: (file.model(name, images.scored), facts),
            facts,
            header.info,
            made=header.made,
            count=len(header.images),
        )

    return tuple(entrant(row.name) for row in rows)


def _predicted(path: Path, choices: ReadingChoices) -> Entrant:
    if not path.is_file():
        raise DataError(f"predictions '{path}' do not exist")

    def read(images: ComparedImages) -> tuple[RecordedModel, ArtifactInfo]:
        file = read_predictions(path, images.everything, len(images.scored), images.info, reading_options(choices))
        return file.model, prediction_info(file)

    return Entrant(path.stem, read, ArtifactInfo(path=path.name, sha256=file_sha256(path)))


def _models(text: str, threads: int, store: Store | None) -> tuple[Entrant, ...]:
    found = contenders(text)
    made = [_exported(name, exported, threads, store) for name, exported in named_rows(found.exports.exports)]
    names = path_names([*(f.path for f in found.foreign), *found.checkpoints], (e.name for e in made))
    made += [_foreign(name, foreign, threads) for name, foreign in zip(names, found.foreign, strict=False)]
    made += [_checkpoint(n, p, threads) for n, p in zip(names[len(found.foreign) :], found.checkpoints, strict=True)]
    return tuple(made)


def _foreign(name: str, foreign: ForeignArtifact, threads: int) -> Entrant:
    facts = ArtifactInfo(
        path=foreign.path.name,
        scheme="foreign",
        size_bytes=foreign.size_bytes,
        sha256=content_sha256(foreign.path),
        latency_note="foreign artifacts are not timed",
    )
    return Entrant(name, lambda images: (foreign.open(threads), facts), facts, foreign.info, runs=True)


def _exported(name: str, exported: ExportedModel, threads: int, store: Store | None) -> Entrant:
    from .. import targets

    target = targets.get(exported.target)
    target.store = store
    facts = exported_info(exported)

    def load(images: ComparedImages) -> tuple[Runner, ArtifactInfo]:
        # Here and not before: an absent runtime matters only for rows that are compared.
        target.require()
        return target.load(exported, threads), facts

    return Entrant(
        name, load, facts, exported.info, exported, key=lambda images: of_export(exported, facts.sha256), runs=True
    )


def _checkpoint(name: str, path: Path, threads: int) -> Entrant:
    model = load_model(path)
    facts = ArtifactInfo(
        path=path.name,
        scheme="checkpoint",
        sha256=file_sha256(path),
        size_bytes=path.stat().st_size,
        weights=weights_sha256(model.module),
    )
    traced = TracedModel.of(model)

    def load(images: ComparedImages) -> tuple[Runner, ArtifactInfo]:
        from .torch_runner import TorchRunner

        sized = TracedModel.of(model, images.info.imgsz)
        return TorchRunner(sized.graph.module, sized.info, threads), facts

    # (0, 0): a checkpoint takes any size, so that of the other side is used.
    return Entrant(
        name,
        load,
        facts,
        replace(traced.info, imgsz=(0, 0)),
        key=lambda images: of_network(model, TracedModel.of(model, images.info.imgsz).info),
        runs=True,
    )


def pairs(
    old: Sequence[Entrant], new: Sequence[Entrant], only: Sequence[str] = ()
) -> tuple[tuple[str, Entrant, Entrant], ...]:
    """What is compared with what: the only one of either side, or rows of one name.

    Args:
        old: The last release.
        new: The new one.
        only: Names of rows; all that both have if empty.

    Raises:
        UsageError: No row of one is called as one of the other.
    """
    olds, news = {e.name: e for e in old}, {e.name: e for e in new}
    if len(olds) == len(news) == 1 and not only:
        (before,), (after,) = old, new
        return ((after.name, before, after),)
    wanted = only or tuple(name for name in news if name in olds)
    missing = [name for name in wanted if name not in olds or name not in news]
    if missing or not wanted:
        raise UsageError(
            f"nothing is called {missing[0] if missing else 'alike'} on both sides: old has {', '.join(olds)}, new has "
            f"{', '.join(news)}; name a single artifact on either side, or rows that both have with only="
        )
    return tuple((name, olds[name], news[name]) for name in wanted)
