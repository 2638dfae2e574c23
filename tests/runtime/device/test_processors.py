"""Threads respect the affinity and the container's quota; what adds exactly is known."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import yoloquant
from yoloquant.runtime.device.processors import WITHOUT_VNNI, affinity, cpu_quota, cpu_threads, has_vnni


def groups(root: Path, own: str, **files: str) -> tuple[Path, Path]:
    """A tree of control groups: ``a__b__cpu_max`` is the file a/b/cpu.max."""
    for name, text in files.items():
        *folders, file = name.split("__")
        path = root.joinpath("cgroup", *folders, file.replace("_", ".", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (root / "own").write_text(own + "\n")
    return root / "cgroup", root / "own"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/", {"cpu_max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a__b__cpu_max": "max 100000", "a__cpu_max": "50000 100000"}, 0.5),
        ("0::/a", {"a__cpu_max": "max 100000"}, None),
        ("4:cpu,cpuacct:/job", {"cpu,cpuacct__job__cpu_cfs_quota_us": "200000",
                                "cpu,cpuacct__job__cpu_cfs_period_us": "100000"}, 2.0),
        ("4:cpu:/", {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, None),
        ("5:memory:/job", {"memory__job__cpu_max": "10000 100000"}, None),
        ("nonsense", {"cpu_max": "word salad"}, None),
        ("0::/", {"cpu_max": "100000 0"}, None),
    ],
)  # fmt: skip
def test_quotas_of_both_versions(tmp_path: Path, own: str, files: dict[str, str], quota: float | None) -> None:
    root, place = groups(tmp_path, own, **files)
    assert cpu_quota(root, place) == quota
    cores = len(affinity()) or os.cpu_count() or 1
    assert cpu_threads(root, place) == (cores if quota is None else max(1, min(cores, -int(-quota // 1))))


def test_a_machine_without_control_groups(tmp_path: Path) -> None:
    assert cpu_threads(tmp_path / "no", tmp_path / "none") == (len(affinity()) or os.cpu_count())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_the_affinity_counts(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert affinity() == (min(before),) and cpu_threads(tmp_path, tmp_path / "none") == 1
    finally:
        os.sched_setaffinity(0, before)


def test_no_other_place_counts_the_cores_of_the_machine() -> None:
    root = Path(yoloquant.__file__).parent
    found = [str(p.relative_to(root)) for p in root.rglob("*.py") if re.search(r"cpu_count\(", p.read_text())]
    assert found == ["runtime/device/processors.py"]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("flags : fpu avx2 avx512f avx512_vnni amx_int8", True),
        ("flags : fpu avx2 avx_vnni", True),
        ("flags : fpu avx2 avx512f", False),
        ("Features : fp asimd asimddp", False),
        ("", None),
    ],
)
def test_vnni_is_read_from_the_kernels_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, found: bool | None
) -> None:
    monkeypatch.delenv(WITHOUT_VNNI, raising=False)
    (tmp_path / "cpuinfo").write_text(flags)
    assert has_vnni(tmp_path / "cpuinfo") is found
    assert has_vnni(tmp_path / "missing") is None
    monkeypatch.setenv(WITHOUT_VNNI, "1")
    assert has_vnni(tmp_path / "cpuinfo") is False
