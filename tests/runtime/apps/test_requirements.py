from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from bundle_fakes import write_fake_bundle

from yoloquant.runtime.apps import requirements
from yoloquant.runtime.apps.requirements import check_requirements, numbers
from yoloquant.runtime.core.bundle_manifest import BundleManifest, Requirement
from yoloquant.runtime.errors import MissingRuntimeError, TargetError


def needing(tmp_path: Path, *requires: Requirement) -> BundleManifest:
    from dataclasses import replace

    return replace(write_fake_bundle(tmp_path), requires=requires)


def test_installed_library_is_named(tmp_path: Path) -> None:
    assert check_requirements(needing(tmp_path, Requirement("numpy", "numpy", "1.17"))) == "numpy"
    assert check_requirements(needing(tmp_path)) == ""


def test_the_first_that_is_installed_counts(tmp_path: Path) -> None:
    absent, there = Requirement("no_such_module", "no-such", "1"), Requirement("numpy", "numpy", "1.17")
    assert check_requirements(needing(tmp_path, absent, there)) == "numpy"
    with pytest.raises(MissingRuntimeError, match='pip install "no-such>=1"'):
        check_requirements(needing(tmp_path, absent))


def test_old_version_is_refused_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.9.2")
    wanted = Requirement("numpy", "numpy", "1.10")
    with pytest.raises(TargetError, match=r'numpy 1\.9\.2 is installed.*needs 1\.10.*pip install "numpy>=1\.10"'):
        check_requirements(needing(tmp_path, wanted))


def test_a_module_without_a_distribution_tells_its_version_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("tensorrt_of_jetpack")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(requirements.util, "find_spec", lambda name: object())
    manifest = needing(tmp_path, Requirement(module.__name__, "tensorrt", "8.5.0"))
    assert check_requirements(manifest) == "tensorrt"  # it tells none: nothing to hold against
    module.__version__ = "10.3.0.post1"  # type: ignore[attr-defined]
    check_requirements(manifest)
    module.__version__ = "8.4.1.5"  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match=r"8\.4\.1\.5.*JetPack"):
        check_requirements(manifest)


@pytest.mark.parametrize(
    ("text", "expected"), [("10.3.0.post1", (10, 3, 0)), ("2026.4.1-21", (2026, 4, 1)), ("1", (1,)), ("dev", ())]
)
def test_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert numbers(text) == expected
