"""What is to be judged: exports of this project, files that others made, and the names of their rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bridge.foreign import CHECKPOINT, ForeignArtifact, describe_foreign, is_foreign
from ..errors import ArtifactError, UsageError
from ..targets.exports import FILE_NAME, ExportResult, load_exports
from ..types import ExportedModel, ModelInfo

UNKNOWN_CALIBRATION = (
    "foreign: not made by yoloquant, so it is not known what it was calibrated on (Ultralytics takes the val split, "
    "the images that are scored, which flatters it)"
)


@dataclass(frozen=True)
class Contenders:
    """Everything that is judged.

    Attributes:
        exports: What this project exported, and what it could not.
        foreign: Files of others.
        checkpoints: Float checkpoints.
    """

    exports: ExportResult
    foreign: tuple[ForeignArtifact, ...] = ()
    checkpoints: tuple[Path, ...] = ()

    @property
    def infos(self) -> tuple[tuple[str, ModelInfo], ...]:
        """Name and description of everything whose input size is fixed."""
        made = tuple((e.path.name, e.info) for e in self.exports.exports)
        return made + tuple((f.path.name, f.info) for f in self.foreign)


@dataclass
class _Collected:
    exports: list[ExportedModel] = field(default_factory=list)
    foreign: list[ForeignArtifact] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)


def contenders(exports: Any, near: Path | None = None) -> Contenders:
    """Find what is to be judged.

    Args:
        exports: What ``export`` returned; several ``ExportedModel``; or paths, in a list or separated by commas: export
            folders, artifacts in them, and exports of others. None for nothing.
        near: Folder that stands for the export folder where there is none.

    Raises:
        ArtifactError: Something is missing, damaged, or nobody knows what it holds.
        UsageError: There is nothing.
    """
    if isinstance(exports, ExportResult):
        return Contenders(exports)
    if exports is None:
        return Contenders(ExportResult(near or Path.cwd(), ()))
    collected = _Collected()
    for item in _items(exports):
        if isinstance(item, ExportedModel):
            collected.exports.append(item)
        else:
            _find(Path(item), collected)
    if not (collected.exports or collected.foreign or collected.checkpoints):
        raise UsageError("there is no artifact to validate")
    # The folder of the first one: the FP32 model is looked for beside it, too.
    paths = [e.path for e in collected.exports] + [f.path for f in collected.foreign] + collected.checkpoints
    return Contenders(
        ExportResult(paths[0].parent, tuple(collected.exports)), tuple(collected.foreign), tuple(collected.checkpoints)
    )


def _items(exports: Any) -> Sequence[Any]:
    if isinstance(exports, (str, os.PathLike)):
        text = os.fspath(exports)
        parts = [part.strip() for part in text.split(",") if part.strip()]
        # a path may hold a comma itself; one that exists is taken whole
        return [text] if Path(text).exists() or len(parts) < 2 else parts
    return tuple(exports)


def _find(path: Path, found: _Collected) -> None:
    if path.suffix == CHECKPOINT and path.is_file():
        found.checkpoints.append(path)
        return
    # what looks like neither is given to the reader of listings, whose message says what was expected
    if (path / FILE_NAME).is_file() or not (path.is_dir() or is_foreign(path)):
        found.exports.extend(load_exports(path))
        return
    if is_foreign(path):
        # an .onnx of our own in its folder: the listing knows its task, classes and calibration
        if _listed(path):
            found.exports.extend(load_exports(path))
        else:
            found.foreign.append(describe_foreign(path))
        return
    # A folder of Ultralytics' (saved_model) is itself an artifact, which was told apart above.
    inside = sorted(p for p in path.iterdir() if is_foreign(p))
    if not inside:
        raise ArtifactError(
            f"folder '{path}' holds neither {FILE_NAME} of an export nor an artifact of Ultralytics; name the folder "
            "that 'export' wrote, or the artifact itself"
        )
    found.foreign.extend(describe_foreign(p) for p in inside)


def _listed(path: Path) -> bool:
    """Whether an artifact is on the list of its export folder."""
    if not (path.parent / FILE_NAME).is_file():
        return False
    return any(e.path.name == path.name for e in load_exports(path.parent))


def named_rows(exports: Iterable[ExportedModel]) -> list[tuple[str, ExportedModel]]:
    """Every artifact under a name of its own: its target's, with its file, its folder or a number where that is shared.

    A name that two shared would hide one of them.
    """
    exports = tuple(exports)
    names = [e.name for e in exports]
    for name, count in Counter(names).items():
        if count == 1:
            continue
        alike = [i for i, other in enumerate(names) if other == name]
        by_file = [f"{name}:{exports[i].path.name}" for i in alike]
        by_folder = [f"{exports[i].path.resolve().parent.name}/{name}" for i in alike]
        chosen = next((n for n in (by_file, by_folder) if len(set(n)) == len(n)), _numbered(by_file))
        for i, own in zip(alike, chosen, strict=True):
            names[i] = own
    return list(zip(names, exports, strict=True))


def _numbered(names: Sequence[str]) -> list[str]:
    count, seen = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if count[name] == 1 else f"{name}:{seen[name]}")
    return numbered


def path_names(paths: Iterable[Path], taken: Iterable[str]) -> list[str]:
    """A name of its own for every file: the file's, with its folder's in front where that is taken."""
    paths, used = tuple(paths), set(taken)
    count = Counter(path.name for path in paths)
    names = []
    for path in paths:
        name = (
            path.name
            if count[path.name] == 1 and path.name not in used
            else f"{path.resolve().parent.name}/{path.name}"
        )
        names.append(name if name not in used else str(path))
        used.add(names[-1])
    return names


def check_classes(artifact: ForeignArtifact, names: Sequence[str]) -> None:
    """Refuse an artifact with other classes than the FP32 model's.

    Raises:
        ArtifactError: It has.
    """
    theirs = artifact.info.names
    if len(theirs) == len(names) and all(a == b for a, b in zip(theirs, names, strict=True)):
        return
    raise ArtifactError(
        f"artifact '{artifact.path.name}' has {len(theirs)} classes ({', '.join(theirs[:3])} ...), the FP32 model "
        f"{len(names)} ({', '.join(names[:3])} ...); judge it beside the model that it was made from"
    )
