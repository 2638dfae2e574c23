"""The manifest of a bundle: what lies in its folder, with the hash of every file.

A manifest proves that a bundle is whole and unchanged, not who made it: whoever can change a file can also write a new
manifest. Where that matters, keep the bundle's ``id``, which the export prints, apart from the bundle and pass it as
``expect``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import BundleError
from .folder_check import FileEntry, check_folder, check_relative
from .model_info import ModelInfo, Task

FORMAT = 1
FILE_NAME = "manifest.json"
_LARGEST = 32 * 1024 * 1024  # bytes; a real manifest has some ten thousand
_T = TypeVar("_T")


@dataclass(frozen=True)
class Requirement:
    """A library that runs the model; of several, one is enough.

    Attributes:
        module: Its Python module.
        package: Its name for pip.
        minimum: Lowest version that runs the model.
    """

    module: str
    package: str
    minimum: str


@dataclass(frozen=True)
class ExportAccuracy:
    """The accuracy that the export machine measured.

    Attributes:
        metrics: Every metric of the task by name, 0 to 1; a detector's ``map50_95`` and ``map50``.
        images: Images scored.
        labels: Labelled boxes on them; 0 if unknown.
        data_sha256: Hash of images and labels; empty if unknown.
        source: What measured it: ``runtime`` (this code, on the export machine) or ``report`` (yoloquant validate).
    """

    metrics: Mapping[str, float]
    images: int
    labels: int = 0
    data_sha256: str = ""
    source: str = "runtime"


@dataclass(frozen=True)
class BundleManifest:
    """What a bundle holds.

    Attributes:
        target: Name of the target that wrote the model.
        device: The device that the bundle is for.
        backend: The runtime that opens the model.
        model: Path of the model inside the bundle.
        info: What the runtime must know about the model.
        files: Every file of the bundle but the manifest, by path inside it.
        raw: Whether the model returns raw heads, which the runtime decodes.
        precision: ``int8`` or ``fp32``.
        requires: Libraries that run the model; one of them is enough.
        golden: Golden inputs, expected results and tolerances, see ``golden.py``.
        accuracy: The export machine's accuracy; None if it was not measured.
        expected_int8: Layers that an engine built from the model must run in Int8.
        plan: Where the quantization plan lies, its scheme and its number of points.
        versions: What the model was made with.
        source: Name and hash of the checkpoint, and where calibration came from.
        id: Hash of everything above; the bundle's fingerprint.
        format: Version of this file's layout.
    """

    target: str
    device: str
    backend: str
    model: str
    info: ModelInfo
    files: Mapping[str, FileEntry]
    raw: bool = False
    precision: str = "int8"
    requires: tuple[Requirement, ...] = ()
    golden: Mapping[str, Any] = field(default_factory=dict)
    accuracy: ExportAccuracy | None = None
    expected_int8: tuple[str, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    format: int = FORMAT

    def signed(self) -> BundleManifest:
        """The same with its ``id``."""
        return replace(self, id=_fingerprint(_plain(self)))

    def text(self) -> str:
        """The content of ``manifest.json``; one manifest has exactly one text."""
        return _canonical(_plain(self))


def read(folder: str | Path, *, check: bool = True, expect: str = "") -> BundleManifest:
    """Read the manifest of a bundle.

    Args:
        folder: The bundle's folder.
        check: Whether to hold every file against its hash, and to refuse files that can run and are not listed.
        expect: The bundle's ``id`` as the export printed it; any is accepted if empty.

    Raises:
        BundleError: There is no manifest, it is damaged, of another format or not the expected one, a path leads out
            of the bundle, or a file is missing, changed, cut short, a link, or executable and not listed. The message
            names the file.
    """
    folder = Path(folder)
    manifest = _parse(_load(folder / FILE_NAME))
    if expect and manifest.id != expect.strip().lower():
        expected = expect.strip().lower()
        raise BundleError(f"'{folder}' is the bundle {manifest.id}, expected was {expected}; copy the bundle again")
    if check:
        check_folder(folder, manifest.files, FILE_NAME)
    return manifest


def model_path(folder: str | Path, manifest: BundleManifest) -> Path:
    """The file or folder that the bundle's runtime opens (or another form of it, see ``Backend.form``)."""
    return Path(folder) / manifest.model


def _load(path: Path) -> dict[str, Any]:
    """The JSON object in a file, if the file is what ``text`` wrote and the ``id`` in it is right."""
    # A link could lead to a manifest outside, whose files were never part of this bundle.
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"'{path.parent}' is no bundle: it has no file {path.name}; name the folder that holds it")
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise BundleError(f"'{path}' cannot be read ({exc.strerror or exc})") from exc
    # Before it is parsed: JSON of that size takes a multiple of it in memory.
    if len(content) > _LARGEST:
        raise BundleError(f"'{path}' has {len(content)} bytes; a manifest is never that large")
    try:
        # NaN and Infinity are no JSON and are never written; an infinite tolerance would pass anything.
        data = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise BundleError(f"'{path}' is damaged ({exc}); copy the bundle again") from exc
    if not isinstance(data, dict):
        raise BundleError(f"'{path}' is damaged (no JSON object); copy the bundle again")
    # Before the id: a later format may compute it in another way, and "was changed" would be a wrong lead.
    if data.get("format") != FORMAT:
        got = data.get("format")
        raise BundleError(f"'{path}' has format {got!r}, this runtime reads {FORMAT}; use the runtime in the bundle")
    # Byte by byte: of two spellings of the same data only one can be what was exported.
    if _canonical(data).encode("utf-8") != content or data.get("id") != _fingerprint(data):
        raise BundleError(f"'{path}' was changed after the export (its id does not fit); copy the bundle again")
    return data


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not allowed")


def _canonical(data: Mapping[str, Any]) -> str:
    # Sorted, ASCII, one indent: the id is a hash of this text, on every Python alike.
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def _fingerprint(data: Mapping[str, Any]) -> str:
    # Without the id, which cannot contain itself.
    content = {key: value for key, value in data.items() if key != "id"}
    return hashlib.sha256(_canonical(content).encode("utf-8")).hexdigest()


def _plain(manifest: BundleManifest) -> dict[str, Any]:
    data = asdict(manifest)
    data["info"]["task"] = manifest.info.task.value
    plain: dict[str, Any] = json.loads(json.dumps(data))  # tuples become lists
    return plain


def _parse(data: dict[str, Any]) -> BundleManifest:
    try:
        values = dict(data)
        values["info"] = info_from_dict(values["info"])
        values["files"] = {check_relative(path): _build(FileEntry, e) for path, e in values["files"].items()}
        values["requires"] = tuple(_build(Requirement, r) for r in values["requires"])
        values["accuracy"] = None if values["accuracy"] is None else _build(ExportAccuracy, values["accuracy"])
        values["expected_int8"] = tuple(str(name) for name in values["expected_int8"])
        manifest = _build(BundleManifest, values)
        for name in ("target", "device", "backend", "model", "precision"):
            if not isinstance(getattr(manifest, name), str):
                raise TypeError(f"'{name}' is not text")
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise BundleError(f"{FILE_NAME} is damaged ({exc!r}); copy the bundle again") from exc
    inside = manifest.model + "/"
    if manifest.model not in manifest.files and not any(path.startswith(inside) for path in manifest.files):
        raise BundleError(f"{FILE_NAME} names the model '{check_relative(manifest.model)}' but does not list it")
    return manifest


def _build(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """A dataclass from exactly its fields."""
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    # Missing keys as well: a default would fill in what the export never said.
    if set(values) != names:
        odd = ", ".join(sorted(set(values) ^ names))
        raise TypeError(f"{cls.__name__} has missing or unknown keys: {odd}")
    return cls(**values)


def info_from_dict(data: Mapping[str, Any]) -> ModelInfo:
    """A model's description from plain data, as JSON holds it."""
    values = dict(data)
    values["task"] = Task(values["task"])
    for key in ("names", "imgsz", "strides"):
        values[key] = tuple(values[key])
    values["kpt_shape"] = tuple(values["kpt_shape"]) if values["kpt_shape"] else None
    return _build(ModelInfo, values)
