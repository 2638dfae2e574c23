"""Whether this machine has a library that can run a bundle's model, in a version that is new enough."""

from __future__ import annotations

import importlib
import re
from importlib import metadata, util

from ..core.bundle_manifest import BundleManifest, Requirement
from ..errors import MissingRuntimeError, TargetError


def check_requirements(manifest: BundleManifest) -> str:
    """Find the library that will run the model.

    Args:
        manifest: Of the bundle; the first library of its list that is installed counts.

    Returns:
        Its name for pip; empty if the bundle names none.

    Raises:
        MissingRuntimeError: None of them is installed.
        TargetError: The installed one is too old.
    """
    if not manifest.requires:
        return ""
    for requirement in manifest.requires:
        # Without importing it: a library that is broken or slow is not loaded only to see that it is there.
        if util.find_spec(requirement.module) is not None:
            _check_version(requirement, _version(requirement))
            return requirement.package
    first = manifest.requires[0]
    raise MissingRuntimeError(manifest.backend, first.module, _fix(first))


def _check_version(requirement: Requirement, version: str) -> None:
    # A library that does not tell its version is let through; loading the model then says what is wrong.
    if version and numbers(version) < numbers(requirement.minimum):
        raise TargetError(
            f"{requirement.package} {version} is installed, this bundle needs {requirement.minimum} or newer; "
            f"{_fix(requirement)}"
        )


def _fix(requirement: Requirement) -> str:
    if requirement.package == "tensorrt":
        return "it comes with JetPack: sudo apt install python3-libnvinfer, and make it visible to this Python"
    return f'install it with: pip install "{requirement.package}>={requirement.minimum}"'


def _version(requirement: Requirement) -> str:
    """Of the installed library; empty if it does not tell."""
    try:
        return metadata.version(requirement.package)
    except metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(requirement.module), "__version__", ""))


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: ``10.3.0.post1`` gives (10, 3, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
