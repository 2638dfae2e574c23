"""The Edge TPU tool: a file, bad options, and one measurement from end to end."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from edgetpu_graphs import Op, T, build  # noqa: E402


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools.check_edgetpu", ROOT / "tools" / "check_edgetpu.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_file_is_checked(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = dict.fromkeys("abc", T((1, 8, 8, 4)))
    path, out = tmp_path / "model.tflite", tmp_path / "report.md"
    path.write_bytes(build(maps, [Op("LOGISTIC", ["a"], ["b"]), Op("SIN", ["b"], ["c"], 1)]))
    assert tool.main([f"file={path}", f"out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "partition ends at operator 1, SIN" in printed and "1 of 2 operators" in printed
    assert out.read_text() in printed
    assert tool.main([f"file={path}", "tables=yes"]) == 0
    assert "#  operator" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["file=nowhere.tflite"], "cannot be read"),
        (["model=nowhere.pt"], "does not exist"),
        (["variants=kept,guessed"], "guessed"),
        (["threads=none"], "none"),
    ],
)
def test_bad_options(tool: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.nightly
def test_a_measurement(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("litert_torch", reason="the litert extra is not installed")
    from core_models import write_images
    from tiny_models import tiny_checkpoint
    from ultralytics import YOLO

    model, data = tiny_checkpoint(tmp_path), write_images(tmp_path)
    names = list(YOLO(model).names.values())
    data.write_text(data.read_text().replace("names: [", f"names: {names} # ["))
    arguments = [f"model={model}", f"data={data}", "imgsz=64", "images=8", "threads=1", "bootstrap=100"]
    assert tool.main([*arguments, f"work={tmp_path / 'work'}", "tables=yes"]) == 0
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line]
    static = {row[1]: row for row in rows if row[0] == "64" and row[1] in {"kept", "fitted"}}
    assert static["fitted"][4] == "100.0%" and float(static["kept"][4][:-1]) < 100
    scored = {row[1] for row in rows if row[0] == "64"} - set(static)
    assert scored == {
        *("fp32", "fp32, attention left out", "fp32, attention fitted"),
        *("int8, attention kept", "int8, attention fitted"),
    }
    assert not any("failed" in cell for row in rows for cell in row)
    assert (tmp_path / "work" / f"{model.stem}_64_fitted-edgetpu.tflite").is_file()
