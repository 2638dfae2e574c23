from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from device_fakes import INFO, PLANNED, FakeCuda, install, qdq_model
from fake_tensorrt import Release

from yoloquant.runtime.device.cuda import GpuInfo
from yoloquant.runtime.errors import ArtifactError, MissingRuntimeError, OutputError, TargetError, UsageError
from yoloquant.runtime.tensorrt import api, build
from yoloquant.runtime.tensorrt.build import Request, build_engine
from yoloquant.runtime.tensorrt.build_options import BuildOptions, Sources
from yoloquant.runtime.tensorrt.header import read_header
from yoloquant.runtime.tensorrt.layers import Int8Error


def _request(sources: Sources, **options: Any) -> Request:
    return Request(sources, INFO, PLANNED, BuildOptions(**options))


def _engines(sources: Sources) -> list[str]:
    folder = sources.onnx.parent / "engines"
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def test_every_release_builds_an_engine_that_runs_as_planned(release: Release, sources: Sources) -> None:
    built = build_engine(_request(sources), cuda=FakeCuda(release))
    assert built.fresh and built.int8 is not None
    assert built.int8.int8 == PLANNED and built.int8.ok
    header = read_header(built.path)
    assert header.ours["tensorrt"] == release.name and header.ours["gpu"] == "Orin"
    assert header.plan().startswith(b"fake-plan")


@pytest.mark.parametrize("name", ["8.4.1", "8.5.2", "8.6.1", "10.3.0"])
def test_weakly_typed_releases_get_both_precisions(
    name: str, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = install(name, monkeypatch)
    build_engine(_request(sources, workspace=0.5, sparse=True), cuda=FakeCuda(release))
    ((network, config),) = release.built_with
    assert config._flags == {"INT8", "FP16", "SPARSE_WEIGHTS"}
    assert config._pools == {"WORKSPACE": 1 << 29}
    assert network._flags == (1 if name.startswith("8") else 0)
    assert network._model.graph.node[0].op_type == "QuantizeLinear"


def test_strongly_typed_release_gets_the_typed_model_and_no_flags(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = install("11.0.0", monkeypatch)
    build_engine(_request(sources), cuda=FakeCuda(release))
    ((network, config),) = release.built_with
    assert config._flags == set()
    assert any(n.op_type == "Cast" for n in network._model.graph.node)


def test_strongly_typed_release_without_fp16_builds_from_the_float32_model(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = install("11.0.0", monkeypatch)
    build_engine(_request(sources, fp16=False), cuda=FakeCuda(release))
    assert not any(n.op_type == "Cast" for n in release.built_with[0][0]._model.graph.node)


def test_without_fp16_only_int8_is_allowed(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    build_engine(_request(sources, fp16=False), cuda=FakeCuda(release))
    assert release.built_with[0][1]._flags == {"INT8"}


def test_optimisation_level_is_set_where_it_exists(release: Release, sources: Sources) -> None:
    request = _request(sources, level=5)
    if release.version >= (8, 6):
        build_engine(request, cuda=FakeCuda(release))
        assert release.built_with[0][1].builder_optimization_level == 5
    else:
        with pytest.raises(UsageError, match=rf"TensorRT {release.name} has no builder optimisation levels"):
            build_engine(request, cuda=FakeCuda(release))
        assert not [n for n in _engines(sources) if n.endswith(".engine")]


def test_layer_in_another_type_is_an_error_that_names_it(release: Release, sources: Sources) -> None:
    release.float_layers = {"last"}
    with pytest.raises(Int8Error, match=r"1 of 2 planned layers run in Int8; in another type: last; .*check=warn"):
        build_engine(_request(sources), cuda=FakeCuda(release))
    assert not [n for n in _engines(sources) if n.endswith((".engine", ".part"))]


def test_layer_in_another_type_can_be_taken_with_a_warning(
    release: Release, sources: Sources, caplog: pytest.LogCaptureFixture
) -> None:
    release.float_layers = {"last"}
    with caplog.at_level(logging.WARNING):
        built = build_engine(_request(sources, check="warn"), cuda=FakeCuda(release))
    assert "in another type: last" in caplog.text
    assert read_header(built.path).ours["int8"]["other"] == ["last"]


def test_missing_layer_is_an_error_too(release: Release, sources: Sources) -> None:
    request = replace(_request(sources), planned=(*PLANNED, "model.9.conv"))
    with pytest.raises(Int8Error, match=r"not found in the engine: model\.9\.conv"):
        build_engine(request, cuda=FakeCuda(release))


def test_second_build_takes_the_engine_that_is_there(release: Release, sources: Sources) -> None:
    first = build_engine(_request(sources), cuda=FakeCuda(release))
    content = first.path.read_bytes()
    again = build_engine(_request(sources), cuda=FakeCuda(release))
    assert not again.fresh and again.path == first.path and len(release.built_with) == 1
    forced = build_engine(_request(sources, force=True), cuda=FakeCuda(release))
    assert forced.fresh and len(release.built_with) == 2 and forced.path.read_bytes() == content


@pytest.mark.parametrize("what", ["gpu", "compute capability", "TensorRT", "JetPack", "model", "options"])
def test_anything_that_changes_the_engine_changes_its_name(
    what: str, sources: Sources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = install("10.3.0", monkeypatch)
    first = build_engine(_request(sources), cuda=FakeCuda(release))
    request, gpu = _request(sources), GpuInfo("Orin", "8.7")
    if what == "gpu":
        gpu = GpuInfo("Xavier", "8.7")
    elif what == "compute capability":
        gpu = GpuInfo("Orin", "7.2")
    elif what == "TensorRT":
        release = install("10.7.0", monkeypatch)
    elif what == "JetPack":
        monkeypatch.setattr("yoloquant.runtime.tensorrt.identity.jetson_linux", lambda path: "R36 9.9")
    elif what == "model":
        changed = qdq_model()
        changed.doc_string = "another"
        onnx.save(changed, sources.onnx)
    else:
        request = _request(sources, sparse=True)
    second = build_engine(request, cuda=FakeCuda(release, gpu))
    assert second.fresh and second.path != first.path and first.path.is_file()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_engine_is_built_again(damage: str, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    path = build_engine(_request(sources), cuda=FakeCuda(release)).path
    good = path.read_bytes()
    bad = {"cut": good[:-5], "flipped": good[:-1] + bytes([good[-1] ^ 1]), "empty": b""}[damage]
    path.write_bytes(bad)
    assert build_engine(_request(sources), cuda=FakeCuda(release)).fresh
    assert path.read_bytes() == good


def test_timing_cache_is_kept_and_used_again(release: Release, sources: Sources) -> None:
    build_engine(_request(sources), cuda=FakeCuda(release))
    (name,) = (n for n in _engines(sources) if n.endswith(".cache"))
    assert (sources.onnx.parent / "engines" / name).read_bytes() == b"timings of " + release.name.encode()
    seen: list[bytes] = []
    monkey = release.built_with[0][1].__class__
    original = monkey.create_timing_cache

    def spy(self: Any, blob: bytes) -> Any:
        seen.append(blob)
        return original(self, blob)

    monkey.create_timing_cache = spy  # type: ignore[method-assign]
    try:
        build_engine(_request(sources, force=True), cuda=FakeCuda(release))
    finally:
        monkey.create_timing_cache = original  # type: ignore[method-assign]
    assert seen == [b"timings of " + release.name.encode()]


@pytest.mark.parametrize("blob", [b"garbage", b"timings of another device"])
def test_unfit_timing_cache_is_made_anew(
    blob: bytes, sources: Sources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = install("10.3.0", monkeypatch)
    cache = tmp_path / "my.cache"
    cache.write_bytes(blob)
    with caplog.at_level(logging.WARNING):
        assert build_engine(_request(sources, timing_cache=cache), cuda=FakeCuda(release)).fresh
    assert "does not fit this device or release" in caplog.text
    assert cache.read_bytes() == b"timings of " + release.name.encode()


def test_parser_errors_are_quoted(release: Release, sources: Sources) -> None:
    for path in (sources.onnx, sources.strongly_typed):
        model = onnx.load(path)
        next(n for n in model.graph.node if n.name == "last").op_type = "QLinearConv"
        onnx.save(model, path)
    with pytest.raises(TargetError, match=r"cannot parse .*QLinearConv is not supported"):
        build_engine(_request(sources), cuda=FakeCuda(release))
    assert _engines(sources) == []


def test_dynamic_shapes_are_refused(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    onnx.save(qdq_model(batch=None), sources.onnx)
    with pytest.raises(TargetError, match=r"input 'images' .* has the shape \(-1, 3, 8, 8\)"):
        build_engine(_request(sources), cuda=FakeCuda(release))


def test_failed_build_quotes_the_builder(release: Release, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, network: Any, config: Any) -> None:
        self._logger.log(type(self._logger).Severity.ERROR, "Could not find any implementation for node stem")

    monkeypatch.setattr(release.module.Builder, "build_serialized_network", fail, raising=False)
    with pytest.raises(TargetError, match=r"could not build .*Could not find any implementation for node stem"):
        build_engine(_request(sources), cuda=FakeCuda(release))
    assert not [n for n in _engines(sources) if n.endswith((".engine", ".part"))]


def test_missing_model_says_which_release_needs_it(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("11.0.0", monkeypatch)
    sources.strongly_typed.unlink()
    with pytest.raises(ArtifactError, match=r"best-fp16\.onnx' is missing, which TensorRT 11\.0\.0\.1 needs"):
        build_engine(_request(sources), cuda=FakeCuda(release))


def test_full_disk_leaves_no_engine(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        build_engine(_request(sources), cuda=FakeCuda(release))
    assert _engines(sources) == []


KILLED = """
import os, sys
sys.path[:0] = [{here!r}, {root!r}]
import pytest
from device_fakes import FakeCuda, INFO, PLANNED, install
from pathlib import Path
from yoloquant.runtime.tensorrt import build, header
from yoloquant.runtime.tensorrt.build_options import Sources
mp = pytest.MonkeyPatch()
release = install("10.3.0", mp)
real = os.replace
os.replace = lambda a, b: os._exit(9) if str(b).endswith(".engine") else real(a, b)
build.build_engine(build.Request(Sources.beside(Path({onnx!r})), INFO, PLANNED), cuda=FakeCuda(release))
"""


def test_killed_build_leaves_nothing_that_is_picked_up(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies with the whole engine written, just before it gets its name."""
    root = Path(__file__).resolve().parents[3]
    script = KILLED.format(here=str(root / "tests" / "helpers"), root=str(root), onnx=str(sources.onnx))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    left = _engines(sources)
    assert any(n.endswith(".part") for n in left) and not any(n.endswith(".engine") for n in left)
    identity = build.Identity.of("10.3.0.1", GpuInfo("Orin", "8.7"))
    with pytest.raises(ArtifactError, match="no engine for this device was built"):
        build.find_engine(sources.onnx, identity)
    release = install("10.3.0", monkeypatch)
    assert build_engine(_request(sources), cuda=FakeCuda(release)).fresh


def test_too_old_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("8.4.1", monkeypatch)
    del release.module.MemoryPoolType
    with pytest.raises(TargetError, match=r"TensorRT 8\.4\.1\.2 is too old; 8\.4 and later .* update JetPack"):
        api.load()


def test_empty_tensorrt_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    del release.module.Builder
    with pytest.raises(TargetError, match="is no TensorRT"):
        api.load()


def test_missing_tensorrt_names_jetpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "is_installed", lambda: False)
    with pytest.raises(MissingRuntimeError, match="comes with JetPack"):
        api.load()


def test_header_is_what_ultralytics_reads(release: Release, sources: Sources) -> None:
    pytest.importorskip("ultralytics")
    from ultralytics.nn.autobackend import check_class_names
    from ultralytics.nn.backends.base import BaseBackend

    path = build_engine(_request(sources), cuda=FakeCuda(release)).path
    offset, metadata = BaseBackend.engine_header(path)
    assert path.read_bytes()[offset:].startswith(b"fake-plan")
    backend = SimpleNamespace(dynamic=False)
    BaseBackend.apply_metadata(backend, metadata)
    assert (backend.stride, backend.task, list(backend.imgsz)) == (8, "detect", [8, 8])
    assert check_class_names(backend.names) == {0: "cat", 1: "dog"} and "dla" not in metadata
