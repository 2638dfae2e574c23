"""Write a bundle: everything into a temporary folder first, which then takes its place as a whole."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError, OutputError, TargetError, UsageError
from ..io import atomic_path
from ..quantization.artifact import versions
from ..runtime.core.bundle_manifest import FILE_NAME, BundleManifest, read
from ..runtime.core.folder_check import FileEntry, file_sha256
from ..targets.check_scales import check_scales
from ..types import ExportedModel, HeadLayout
from .archive import pack
from .bundle_options import Bundle, BundleOptions
from .devices import BundleDevice, device_named
from .expected import Expected, make_expected
from .matched import matched_of
from .readme import render

if TYPE_CHECKING:
    from ..quantization.artifact import Artifact
    from ..quantization.plan import Plan

RUNTIME = "yoloquant_runtime"
PLAN, REPORT, LABELS, REQUIREMENTS, README, LICENSE = (
    *("plan.json", "report.json", "labels.txt", "requirements.txt", "README.md", "LICENSE"),
)


def write(
    artifact: Artifact,
    exported: ExportedModel,
    *,
    device: str | BundleDevice,
    folder: str | os.PathLike[str],
    options: BundleOptions | None = None,
) -> Bundle:
    """Write the bundle of one device.

    Args:
        artifact: What the model was exported from; its plan and provenance go into the bundle.
        exported: The model, of the device's target.
        device: A device, or its name; see ``all_devices``.
        folder: The bundle's folder. A bundle in its place is replaced as a whole; anything else is left alone.
        options: Archive, report, data, golden inputs.

    Returns:
        Where it lies, and its manifest.

    Raises:
        UsageError: The device is unknown, is not served by the model's target.
        ArtifactError: The exported model is missing, or has other classes than the artifact.
        DataError: The data are not usable.
        TargetError: The model cannot be run here, so there is nothing to expect from a device; or its scales are not
            those of the artifact's plan.
        OutputError: The folder cannot be written, or holds something else than a bundle. Nothing half-written is left.
    """
    options = options or BundleOptions()
    device = device if isinstance(device, BundleDevice) else device_named(device)
    _check(exported, device)
    # labels.txt comes from the export, the plan from the artifact: they must be of one model
    if exported.info.names != artifact.info.names:
        raise ArtifactError(
            f"artifact '{exported.path.name}' has other classes than the checkpoint that it is bundled with; "
            "export it again"
        )
    folder = Path(folder).absolute()
    _check_place(folder)
    plan = _plan(artifact, exported)
    if plan is not None:
        # a device cannot tell one layer's scale 2 % off from kernels of its own, so it is told here
        check_scales(plan, device.target.read_scales(exported), what=f"'{exported.path.name}'")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        # temporary folders are for their owner alone, and a bundle is copied to another user
        temporary.chmod(0o755)
        notes = _fill(temporary, artifact, exported, device, options, plan)
    # read back from its place: what is returned is what a device will read
    manifest = read(folder)
    return Bundle(folder, pack(folder) if options.archive else None, manifest, notes)


def _check(exported: ExportedModel, device: BundleDevice) -> None:
    if exported.target != device.target.name:
        raise UsageError(
            f"a bundle for {device.name} holds a model of target '{device.target.name}', got one of "
            f"'{exported.target}'; export with targets={device.name}"
        )
    if not exported.path.exists():
        raise ArtifactError(f"artifact '{exported.path}' does not exist; export it first")


def _check_place(folder: Path) -> None:
    """Refuse to replace what is not a bundle."""
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not _is_bundle(folder)):
        raise OutputError(f"'{folder}' exists and is no bundle, so it is not replaced; choose another output=")


def _is_bundle(folder: Path) -> bool:
    try:
        data = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        # by a few keys alone: a bundle of another release may be replaced, too
        return {"format", "id", "files", "golden"} <= set(data)
    except (OSError, ValueError, TypeError):
        return False


def _fill(
    bundle: Path,
    artifact: Artifact,
    exported: ExportedModel,
    device: BundleDevice,
    options: BundleOptions,
    plan: Plan | None,
) -> tuple[str, ...]:
    """Write everything, and return what a person should know."""
    model = f"model/{exported.path.name}"
    _copy(exported.path, bundle / model)
    notes = device.target.add_companions(bundle / model, artifact, exported)
    copy_runtime(bundle / RUNTIME)
    copy_backend(bundle / RUNTIME, device)
    expected = make_expected(exported, device, options, bundle)
    expected = replace(expected, notes=(*expected.notes, *notes))
    texts = {
        # one line for each class: a name with a line break would move all later ones
        LABELS: "".join(f"{' '.join(name.split())}\n" for name in exported.info.names),
        REQUIREMENTS: device.device.requirements,
        LICENSE: _license(),
        **({PLAN: plan.to_json()} if plan is not None else {}),
        **({REPORT: _report_text(options.report)} if options.report is not None else {}),
        README: render(device, exported, expected, model),
    }
    for name, text in texts.items():
        # the same bytes on Windows: files are hashed
        (bundle / name).write_text(text, encoding="utf-8", newline="\n")
    # last: it lists every file, itself excepted
    matched = matched_of(exported, options.report)
    manifest = _manifest(bundle, artifact, exported, device, expected, plan, model, matched)
    (bundle / FILE_NAME).write_text(manifest.text(), encoding="utf-8", newline="\n")
    return expected.notes


def _manifest(
    bundle: Path,
    artifact: Artifact,
    exported: ExportedModel,
    device: BundleDevice,
    expected: Expected,
    plan: Plan | None,
    model: str,
    matched: dict[str, Any],
) -> BundleManifest:
    plain = artifact.metadata()
    planned = exported.metadata.get("planned_convs", ())
    return BundleManifest(
        target=exported.target,
        device=device.name,
        backend=device.backend,
        model=model,
        info=exported.info,
        files=_entries(bundle),
        raw=exported.layout is HeadLayout.RAW,
        precision=exported.precision,
        requires=device.device.requires,
        golden=expected.golden.to_dict(),
        accuracy=expected.accuracy,
        # an engine is built on the device, which may leave layers in float without a word: it is held against these
        expected_int8=tuple(str(name) for name in planned) if exported.precision == "int8" else (),
        plan=_plan_summary(plan),
        versions=versions(),
        source={**{k: v for k, v in plain.items() if k not in {"versions", "ranges"}}, **matched},
    ).signed()


def _plan(artifact: Artifact, exported: ExportedModel) -> Plan | None:
    """The plan that the model was exported with; None for a float model."""
    if exported.precision != "int8":
        return None
    from .. import targets

    return artifact.plan_for(targets.get(exported.target).scheme)


def _plan_summary(plan: Plan | None) -> dict[str, Any]:
    if plan is None:
        return {}
    counts = {"activations": len(tuple(plan.activations)), "weights": len(tuple(plan.weights))}
    return {"file": PLAN, "scheme": plan.scheme, **counts}


def _entries(bundle: Path) -> dict[str, FileEntry]:
    files = sorted(p for p in bundle.rglob("*") if p.is_file())
    return {p.relative_to(bundle).as_posix(): FileEntry(file_sha256(p), p.stat().st_size) for p in files}


def _copy(source: Path, to: Path) -> None:
    """Copy a file or folder, contents only."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        # contents only: times and permissions of the export machine must not make two bundles differ
        shutil.copyfile(source, to)
        return
    to.mkdir()
    for path in sorted(source.iterdir()):
        _copy(path, to / path.name)


def copy_runtime(to: Path) -> None:
    """Copy the device runtime: every Python file of ``yoloquant/runtime``."""
    source = Path(__file__).resolve().parent.parent / "runtime"
    for path in sorted(source.rglob("*.py")):
        _copy(path, to / path.relative_to(source))


def copy_backend(to: Path, device: BundleDevice) -> None:
    """Copy the module of a backend that comes from another distribution, its imports of the runtime made relative.

    Raises:
        TargetError: It imports more of this package than the runtime, which is all that a device has.
    """
    backend = device.target.device_backend()
    if isinstance(backend, str):
        return
    text = Path(inspect.getfile(backend)).read_text(encoding="utf-8")
    # the device has the runtime as a package of its own, without the rest of this one
    text = re.sub(r"^(\s*from )yoloquant\.runtime\.", r"\1..", text, flags=re.MULTILINE)
    if re.search(r"^\s*(from|import) yoloquant\b", text, flags=re.MULTILINE):
        raise TargetError(
            f"the backend of target '{device.target.name}' imports more than 'from yoloquant.runtime.<module> import "
            "...', so it cannot run on a device; move what it needs into its own module"
        )
    (to / "backends" / f"{backend.name}.py").write_text(text, encoding="utf-8", newline="\n")


def _license() -> str:
    """The licence of the runtime, which is in the bundle as source code."""
    top = Path(__file__).resolve().parent.parent.parent / LICENSE
    if top.is_file():
        return top.read_text(encoding="utf-8")
    try:
        files = metadata.files("yoloquant") or []
        # an installed wheel keeps it among its metadata
        return next(f for f in files if f.name == LICENSE).read_text()
    except (metadata.PackageNotFoundError, StopIteration, OSError):
        return "yoloquant_runtime: GNU Affero General Public License v3.0, https://www.gnu.org/licenses/agpl-3.0.txt\n"


def _report_text(report: Any) -> str:
    from ..evaluation.results import ValidationResult
    from ..report.json_report import to_json

    return to_json(report) if isinstance(report, ValidationResult) else Path(report).read_text(encoding="utf-8")
