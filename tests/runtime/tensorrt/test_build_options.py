from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from yoloquant.runtime.device.cuda import GpuInfo
from yoloquant.runtime.errors import UsageError
from yoloquant.runtime.tensorrt.build_options import BuildOptions, Sources, parse_options
from yoloquant.runtime.tensorrt.identity import Identity, board_model, jetson_linux


def test_arguments_become_options() -> None:
    texts = {"workspace": "2.5", "dla": "1", "sparse": "true", "timing_cache": "t.cache", "force": "1", "level": "4"}
    wanted = BuildOptions(workspace=2.5, dla=1, sparse=True, timing_cache=Path("t.cache"), force=True, level=4)
    assert parse_options(texts) == wanted
    assert parse_options({"dla": "none", "fp16": "no", "check": "warn"}) == BuildOptions(fp16=False, check="warn")
    assert parse_options({}) == BuildOptions()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("workspce", "2", "'workspce' is no option of build_engine"),
        ("workspace", "much", "workspace=much is not allowed; it is a number, or none"),
        ("workspace", "0", "above 0"),
        ("workspace", "nan", "out of range"),
        ("dla", "1.5", "it is a whole number"),
        ("dla", "-1", "is no DLA core"),
        ("sparse", "maybe", "allowed are true and false"),
        ("level", "9", "allowed are 0 to 5"),
        ("check", "no", "allowed are error, warn, off"),
    ],
)
def test_bad_arguments_are_refused(key: str, value: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_options({key: value})


def test_models_lie_side_by_side() -> None:
    found = Sources.beside(Path("a/best-tensorrt.onnx"))
    names = [p.name for p in (found.onnx, found.strongly_typed, found.plain, found.calibration)]
    assert names == [f"best-tensorrt{end}" for end in (".onnx", "-fp16.onnx", "-dla.onnx", "-dla.cache")]
    assert {p.parent for p in (found.strongly_typed, found.plain, found.calibration)} == {Path("a")}


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: x", "R35 4.1"),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n# KERNEL_VARIANT: oot", "R36 4.3"),
        ("something else", "something else"),
        ("", ""),
    ],
)
def test_release_of_jetson_linux(text: str, release: str, tmp_path: Path) -> None:
    file = tmp_path / "nv_tegra_release"
    file.write_text(text)
    assert jetson_linux(file) == release
    assert jetson_linux(tmp_path / "absent") == ""
    assert Identity.of("10.3.0", GpuInfo("Orin", "8.7"), file).l4t == release


def test_boards_whose_gpus_have_one_name_are_told_apart(tmp_path: Path) -> None:
    nano, agx = tmp_path / "nano", tmp_path / "agx"
    nano.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    agx.write_bytes(b"Jetson AGX Orin\0")
    here, there = (Identity.of("10.3.0", GpuInfo("Orin", "8.7"), board=file) for file in (nano, agx))
    assert here.key() != there.key()
    assert here.differences(asdict(there)) == (
        "it was built for the board Jetson AGX Orin, here is NVIDIA Jetson Orin Nano Developer Kit"
    )
    assert board_model(tmp_path / "absent") == ""
