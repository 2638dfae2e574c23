"""The archive that follows the flatbuffer."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from yoloquant.errors import ArtifactError
from yoloquant.targets.litert.metadata import HOST_ENTRY, OWN_ENTRY, pack, read

NETWORK = b"\x1c\0\0\0TFL3" + bytes(range(200))


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(pack(NETWORK, {"names": {0: "a"}}, {"plan": [1, 2]}))
    own, network = read(path)
    assert network == NETWORK
    assert own["plan"] == [1, 2]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [HOST_ENTRY, OWN_ENTRY]
        assert json.loads(archive.read(HOST_ENTRY)) == {"names": {"0": "a"}}


def test_equal_input_gives_equal_bytes() -> None:
    assert pack(NETWORK, {"a": 1}, {"b": 2}) == pack(NETWORK, {"a": 1}, {"b": 2})


def test_ultralytics_reads_the_host_entry(tmp_path: Path) -> None:
    backend = pytest.importorskip("ultralytics.nn.backends.base", reason="its backends are elsewhere here")
    path = tmp_path / "x.tflite"
    path.write_bytes(pack(NETWORK, {"task": "detect"}, {}))
    assert backend.BaseBackend.read_metadata(path) == {"task": "detect"}


def test_a_changed_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    content = bytearray(pack(NETWORK, {}, {}))
    content[20] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="not the one that was exported"):
        read(path)


@pytest.mark.parametrize("own", [None, {"format": 99}])
def test_foreign_files_are_refused(tmp_path: Path, own: dict[str, int] | None) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(NETWORK)
    if own is not None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(OWN_ENTRY, json.dumps({**own, "flatbuffer_bytes": len(NETWORK), "sha256": ""}))
    with pytest.raises(ArtifactError, match="format 99" if own else "did not write it"):
        read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        read(tmp_path / "absent.tflite")
