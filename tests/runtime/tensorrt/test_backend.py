from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_fakes import INFO, PLANNED, FakeCuda, install
from fake_tensorrt import Release

from yoloquant.runtime.backends import BackendOptions, open_backend
from yoloquant.runtime.backends import tensorrt as module
from yoloquant.runtime.backends.tensorrt import TensorRTBackend
from yoloquant.runtime.core.detector import Detector
from yoloquant.runtime.core.model_info import HeadLayout
from yoloquant.runtime.device.cuda import GpuInfo
from yoloquant.runtime.errors import ArtifactError, TargetError
from yoloquant.runtime.tensorrt.build import Request, build_engine
from yoloquant.runtime.tensorrt.build_options import Sources
from yoloquant.runtime.tensorrt.header import header_metadata, read_header, write_engine
from yoloquant.runtime.tensorrt.identity import Identity

IMAGE = np.linspace(0, 1, 3 * 64, dtype=np.float32).reshape(1, 3, 8, 8)


def _engine(release: Release, sources: Sources, **gpu: Any) -> Path:
    return build_engine(Request(sources, INFO, PLANNED), cuda=FakeCuda(release, **gpu)).path


def _double(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    flat = np.resize(inputs["images"].ravel(), (1, 6, 64))
    return {"output0": flat * 2}


def _open(path: Path, cuda: FakeCuda, **options: Any) -> TensorRTBackend:
    return TensorRTBackend(path, INFO, BackendOptions(**options), cuda=cuda)


def test_engine_computes_on_one_stream_with_one_wait(release: Release, sources: Sources) -> None:
    path = _engine(release, sources)
    release.compute = _double
    cuda = FakeCuda(release)
    backend = _open(path, cuda)
    assert backend.input_shape == (1, 3, 8, 8) and backend.input_dtype == np.float32
    assert backend.layout is HeadLayout.DECODED and backend.version == release.name
    (result,) = backend.run(IMAGE)
    np.testing.assert_array_equal(result, np.resize(IMAGE.ravel(), (1, 6, 64)) * 2)
    assert result.dtype == np.float32
    assert cuda.log == ["to_device", "to_host", "synchronize"]
    ((addresses, stream),) = release.executed
    assert set(addresses) == {"images", "output0"} and stream == cuda.stream


def test_results_lie_in_the_same_buffer(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    path = _engine(release, sources)
    release.compute = _double
    backend = _open(path, FakeCuda(release))
    first = backend.run(IMAGE)[0]
    second = backend.run(IMAGE * 0.5)[0]
    assert np.shares_memory(first, second), "outputs were copied without need"


def test_a_prepared_image_goes_to_the_device_without_another_copy(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = install("10.3.0", monkeypatch)
    path = _engine(release, sources)
    release.compute = _double
    cuda = FakeCuda(release)
    sent: list[np.ndarray] = []
    queue = cuda.to_device
    monkeypatch.setattr(cuda, "to_device", lambda address, array: (sent.append(array), queue(address, array)))
    locked: list[np.ndarray] = []
    pinned = cuda.pinned
    monkeypatch.setattr(cuda, "pinned", lambda *given: locked.append(pinned(*given)) or locked[-1])
    detector = Detector(_open(path, cuda))
    images = [np.full((8, 8, 3), grey, np.uint8) for grey in (51, 102)]
    tensors = [detector.preprocess(image)[0] for image in images]
    for tensor, value in zip(tensors, (0.2, 0.4), strict=True):
        assert any(tensor is own for own in locked), "an image is prepared in memory that cannot be copied as it is"
        assert detector.infer(tensor)[0].ravel()[0] == pytest.approx(2 * value)
        assert sent[-1] is tensor
    detector.infer(tensors[0].copy())
    assert any(sent[-1] is own for own in locked), "what lies elsewhere goes through page-locked memory"


@pytest.mark.parametrize("bad", [IMAGE.astype(np.float16), IMAGE[:, :, :4]])
def test_other_input_is_refused(bad: np.ndarray, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    backend = _open(_engine(release, sources), FakeCuda(release))
    with pytest.raises(TargetError, match=r"the engine takes float32 \(1, 3, 8, 8\), got"):
        backend.run(bad)


def test_failed_enqueue_is_an_error(release: Release, sources: Sources) -> None:
    backend = _open(_engine(release, sources), FakeCuda(release))
    with pytest.raises(TargetError, match="could not run the engine"):
        backend.run(IMAGE)


def test_cuda_errors_are_wrapped(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    backend = _open(_engine(release, sources), FakeCuda(release))

    def lost(*_: object) -> None:
        raise RuntimeError("cuStreamSynchronize failed: an illegal memory access was encountered")

    monkeypatch.setattr(FakeCuda, "synchronize", lost)
    with pytest.raises(TargetError, match="illegal memory access"):
        backend.run(IMAGE)


@pytest.mark.parametrize("what", ["gpu", "capability", "version", "JetPack", "board"])
def test_engine_of_another_device_is_refused_before_tensorrt_sees_it(
    what: str, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _engine(install("10.3.0", monkeypatch), sources)
    release, gpu = install("10.3.0", monkeypatch), GpuInfo("Orin", "8.7")
    reason = ""
    if what == "gpu":
        gpu, reason = GpuInfo("Orin Nano", "8.7"), "built for the GPU Orin, here is Orin Nano"
    elif what == "capability":
        gpu, reason = GpuInfo("Orin", "8.9"), r"compute capability 8\.7, here is 8\.9"
    elif what == "version":
        release, reason = install("8.6.1", monkeypatch), r"TensorRT 10\.3\.0\.1, here is 8\.6\.1\.2"
    elif what == "board":
        monkeypatch.setattr("yoloquant.runtime.tensorrt.identity.board_model", lambda path: "Orin NX")
        reason = "the board .*, here is Orin NX"
    else:
        monkeypatch.setattr("yoloquant.runtime.tensorrt.identity.jetson_linux", lambda path: "R36 4.3")
        reason = r"Jetson Linux \(none\), here is R36 4\.3"
    cuda = FakeCuda(release, gpu)
    with pytest.raises(ArtifactError, match=f"cannot run here: .*{reason}.*build_engine"):
        _open(path, cuda)
    assert release.runtimes == [], "TensorRT was given the engine"
    assert cuda.closed


def test_engine_of_somebody_else_is_refused(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    header = read_header(_engine(release, sources))
    plan = header.plan()
    foreign = sources.onnx.with_name("foreign.engine")
    text = b'{"names": {"0": "cat"}}'
    foreign.write_bytes(len(text).to_bytes(4, "little") + text + plan)
    with pytest.raises(ArtifactError, match="was not built by build_engine"):
        _open(foreign, FakeCuda(release))
    bare = sources.onnx.with_name("bare.engine")
    bare.write_bytes(plan)
    with pytest.raises(ArtifactError, match="has no header of an engine file"):
        _open(bare, FakeCuda(release))
    with pytest.raises(ArtifactError, match="there is no engine"):
        _open(sources.onnx.with_name("none.engine"), FakeCuda(release))


@pytest.mark.parametrize("cut", [1, 10**9])
def test_truncated_engine_is_refused(cut: int, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    path = _engine(release, sources)
    offset = read_header(path).offset
    data = path.read_bytes()
    path.write_bytes(data[: max(offset, len(data) - cut)])
    release.runtimes.clear()
    with pytest.raises(ArtifactError, match=r"is damaged: not the .* bytes that were built"):
        _open(path, FakeCuda(release))
    assert release.runtimes == []


def test_bundles_model_finds_the_engine_of_this_device(release: Release, sources: Sources) -> None:
    with pytest.raises(ArtifactError, match=r"no engine for this device was built .*build_engine"):
        _open(sources.onnx, FakeCuda(release))
    _engine(release, sources, gpu=GpuInfo("Xavier", "7.2"))
    with pytest.raises(ArtifactError, match="built for the GPU Xavier, here is Orin"):
        _open(sources.onnx, FakeCuda(release))
    _engine(release, sources)
    release.compute = _double
    assert _open(sources.onnx, FakeCuda(release)).run(IMAGE)[0].shape == (1, 6, 64)


def test_engine_of_an_older_model_is_not_taken(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    _engine(release, sources)
    sources.onnx.write_bytes(sources.onnx.read_bytes() + b"")
    assert _open(sources.onnx, FakeCuda(release))
    import onnx

    model = onnx.load(sources.onnx)
    model.doc_string = "retrained"
    onnx.save(model, sources.onnx)
    with pytest.raises(ArtifactError, match="was built from another model"):
        _open(sources.onnx, FakeCuda(release))


def test_dla_core_is_set_before_loading(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    plan = read_header(_engine(release, sources)).plan()
    here = asdict(Identity.of(release.name, GpuInfo("Orin", "8.7")))
    path = write_engine(sources.onnx.with_name("dla.engine"), plan, header_metadata(INFO, 1), here)
    _open(path, FakeCuda(release))
    assert release.runtimes[-1].DLA_core == 1


def test_raw_heads_keep_their_layout(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    assert _open(_engine(release, sources), FakeCuda(release), raw=True).layout is HeadLayout.RAW


def test_close_frees_once(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    cuda = FakeCuda(release)
    backend = _open(_engine(release, sources), cuda)
    backend.close()
    backend.close()
    assert cuda.closed


def test_it_is_found_by_name(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    path = _engine(release, sources)
    cuda = FakeCuda(release)
    asked: list[str] = []
    monkeypatch.setattr(module, "open_cuda", lambda device: asked.append(device) or cuda)
    backend = open_backend("tensorrt", path, INFO, BackendOptions(device="cuda:0"))
    assert isinstance(backend, TensorRTBackend) and asked == ["cuda:0"]
