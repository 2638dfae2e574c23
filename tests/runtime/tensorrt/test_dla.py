from __future__ import annotations

import pytest
from device_fakes import INFO, PLANNED, FakeCuda, install
from fake_tensorrt import Release

from yoloquant.runtime.errors import ArtifactError, TargetError, UsageError
from yoloquant.runtime.tensorrt import compile as compiling
from yoloquant.runtime.tensorrt.build import BuiltEngine, Request, build_engine
from yoloquant.runtime.tensorrt.build_options import BuildOptions, Sources
from yoloquant.runtime.tensorrt.dla import placements
from yoloquant.runtime.tensorrt.header import read_header

WITH_DLA = ["8.4.1", "8.5.2", "8.6.1", "10.3.0"]


def _build(release: Release, sources: Sources, core: int = 0) -> BuiltEngine:
    request = Request(sources, INFO, PLANNED, BuildOptions(dla=core))
    return build_engine(request, cuda=FakeCuda(release))


@pytest.mark.parametrize("name", WITH_DLA)
def test_dla_gets_the_plain_model_and_the_cache_of_its_release(
    name: str, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = install(name, monkeypatch)
    built = _build(release, sources, core=1)
    ((network, config),) = release.built_with
    assert not any(n.op_type == "QuantizeLinear" for n in network._model.graph.node)
    assert config.default_device_type is release.module.DeviceType.DLA and config.DLA_core == 1
    assert config._flags == {"INT8", "FP16", "GPU_FALLBACK"}
    header = read_header(built.path)
    assert header.metadata["dla"] == 1 and header.ours["fallback"] == [["view", "RESHAPE"]]
    assert release.runtimes[-1].DLA_core == 1


def test_what_falls_back_is_said(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    compiled = _build(release, sources).compiled
    assert compiled is not None and compiled.dla is not None
    report = compiled.dla
    assert report.on_dla == ("stem", "last") and report.fallback == (("view", "RESHAPE"),)
    assert report.placed == ("DLA: {ForeignNode[stem...last]}", "GPU: SOFTMAX: node_softmax")
    assert report.summary() == (
        "DLA core 0 can run 2 of 3 layers; on the GPU: view (RESHAPE); in the engine: 1 DLA regions"
    )
    assert compiling.fallback_lines(report)[:2] == [
        "DLA core 0 can run 2 of 3 layers",
        "  on the GPU: view (RESHAPE)",
    ]


def test_placement_lines_of_a_real_log() -> None:
    """Lines as trtexec prints them for TensorRT 8 on a Jetson."""
    log = [
        "[INFO] ---------- Layers Running on DLA ----------",
        "[INFO] [DlaLayer] {ForeignNode[Relu_10...Conv_11]}",
        "[INFO] [GpuLayer] SHUFFLE: Reshape_2 + (Unnamed Layer* 7) [Shuffle]",
    ]
    assert placements(log) == (
        "DLA: {ForeignNode[Relu_10...Conv_11]}",
        "GPU: SHUFFLE: Reshape_2 + (Unnamed Layer* 7) [Shuffle]",
    )


def test_tensorrt_11_has_no_dla(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("11.0.0", monkeypatch)
    with pytest.raises(TargetError, match=r"TensorRT 11\.0\.0\.1 does not support DLAs"):
        _build(release, sources)
    assert release.builders == []


@pytest.mark.parametrize(("cores", "words"), [(2, "cores 0 to 1"), (0, "no DLA")])
def test_core_that_is_not_there(cores: int, words: str, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    release.dla_cores = cores
    with pytest.raises(TargetError, match=f"dla=2 was asked for, but this device has {words}"):
        _build(release, sources, core=2)


def test_refused_cache_is_an_error_with_the_builders_words(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    release.tag = "100400"
    with pytest.raises(TargetError, match="Calibration table does not match calibrator algorithm type"):
        _build(release, sources)


def test_damaged_cache_is_refused(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    sources.calibration.write_text(sources.calibration.read_text()[:-3])
    with pytest.raises(ArtifactError, match="line 4 of the calibration cache is damaged"):
        _build(release, sources)
    sources.calibration.unlink()
    with pytest.raises(ArtifactError, match=r"best-dla\.cache' is missing, which TensorRT 10"):
        _build(release, sources)


def test_dla_without_fp16_is_refused() -> None:
    with pytest.raises(UsageError, match="a DLA runs only Int8 and FP16"):
        BuildOptions(dla=0, fp16=False)
