"""Running the compiler, with a stand-in that prints what the real one does."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

from edgetpu_graphs import Op, T, single
from edgetpu_logs import PARTIAL, TOO_LARGE, WHOLE

from yoloquant.errors import ArtifactError, UsageError
from yoloquant.targets.edgetpu import compiler as edgetpu_compiler
from yoloquant.targets.edgetpu.companions import KEY, accompany, compiled_path
from yoloquant.targets.edgetpu.compiler import PROGRAM, compile_model, find_compiler
from yoloquant.targets.edgetpu.edgetpu_options import CompilerOptions, EdgeTPUOptions
from yoloquant.targets.litert.metadata import pack, read
from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task

MODEL = single(Op("ADD", ["a", "b"], ["c"]), dict.fromkeys("abc", T((1, 8, 8, 4))))
COPY = """
import shutil
shutil.copy(sys.argv[-1], sys.argv[-1].replace(".tflite", "_edgetpu.tflite"))
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Installs a program on PATH that prints a text and runs some code."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(text: str, code: str = "") -> Path:
        path = folder / PROGRAM
        lines = [f"#!{sys.executable}", "import sys, os, time, json", f"print({text!r}, flush=True)"]
        path.write_text("\n".join([*lines, textwrap.dedent(code)]))
        path.chmod(0o755)
        return path

    return install


def exported_file(folder: Path) -> ExportedModel:
    path = folder / "model-edgetpu.tflite"
    path.write_bytes(pack(MODEL, {"task": "detect"}, {"target": "edgetpu", "tensors": {"a": 0}}))
    info = ModelInfo(Task.DETECT, ("a",), (64, 64))
    return ExportedModel("edgetpu", path, info, HeadLayout.RAW, notes=("first",), metadata={"kept": 1})


def test_success(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake(WHOLE, COPY + f"json.dump(sys.argv[1:], open({str(tmp_path / 'arguments')!r}, 'w'))")
    result = compile_model(MODEL, CompilerOptions(search_step=7, try_seconds=33, multiple_subgraphs=True))
    assert result.report.succeeded and result.content == MODEL and result.report.mapped == 5
    arguments = (tmp_path / "arguments").read_text()
    for wanted in ("--show_operations", '"--delegate_search_step", "7"', '"--timeout_sec", "33"', '"-a"', "--out_dir"):
        assert wanted in arguments
    assert not Path(arguments.split('"')[-2]).exists()  # the temporary folder is gone


def test_no_search_and_one_subgraph_by_request(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake(WHOLE, COPY + f"json.dump(sys.argv[1:], open({str(tmp_path / 'arguments')!r}, 'w'))")
    assert compile_model(MODEL, CompilerOptions(search_step=0)).report.succeeded
    arguments = (tmp_path / "arguments").read_text()
    assert "search" not in arguments and '"-a"' not in arguments


def test_the_table_may_be_in_the_log_file_only(fake) -> None:  # type: ignore[no-untyped-def]
    head, table = PARTIAL.split("Operator  ", 1)
    code = COPY + f"open(sys.argv[-1].replace('.tflite', '_edgetpu.log'), 'w').write({'Operator  ' + table!r})"
    fake(head, code)
    assert compile_model(MODEL).report.total == 71


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (TOO_LARGE, "sys.exit(1)", "large activation tensors"),
        (WHOLE, "sys.exit(3)", "exited with 3"),
        (WHOLE, "", "wrote no .tflite"),
        (WHOLE, "open(sys.argv[-1].replace('.tflite', '_edgetpu.tflite'), 'wb').write(b'half')", "wrote no .tflite"),
        ("", "", "wrote|no reason"),
    ],
)
def test_failure(fake, text: str, code: str, message: str) -> None:  # type: ignore[no-untyped-def]
    fake(text, code)
    result = compile_model(MODEL)
    assert not result.report.succeeded and result.content == b""
    assert any(part in result.report.summary()[0] for part in message.split("|"))


def test_a_hanging_compiler_is_killed_with_its_child(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pid = tmp_path / "pid"
    code = f"""
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open({str(pid)!r}, "w").write(str(child.pid))
    time.sleep(600)
    """
    fake("Edge TPU Compiler version 16.0.384591198", code)
    result = compile_model(MODEL, CompilerOptions(timeout_seconds=3))
    assert "did not finish within 3 s" in result.report.summary()[0] and not result.content
    assert not _runs(int(pid.read_text()))


def _runs(pid: int) -> bool:
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return False
        if state == "Z":  # killed, and waiting for somebody to notice
            return False
        time.sleep(0.1)
    return True


def test_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_compiler() is None
    assert "not on PATH" in compile_model(MODEL).report.errors[0]
    facts = accompany(exported_file(tmp_path), {}, EdgeTPUOptions())
    assert facts.metadata[KEY]["compiler"] is None and facts.metadata[KEY]["compiled"] == ""


def test_not_executable(tmp_path: Path) -> None:
    assert "cannot be started" in compile_model(MODEL, program=str(tmp_path)).report.errors[0]


def test_the_compiled_file_stands_beside_the_export(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake(WHOLE, COPY)
    exported = exported_file(tmp_path)
    before = exported.path.read_bytes()
    result = accompany(exported, {"task": "detect"}, EdgeTPUOptions())
    facts = result.metadata[KEY]
    assert result.path == exported.path and exported.path.read_bytes() == before
    assert facts["compiled"] == "model-edgetpu_edgetpu.tflite" and facts["compiler"]["mapped"] == 5
    own, flatbuffer = read(tmp_path / facts["compiled"])
    assert flatbuffer == MODEL and own["target"] == "edgetpu" and "tensors" not in own
    assert result.notes[0] == "first" and result.metadata["kept"] == 1
    assert facts["check"]["complete"] and "1 of 1 operators" in result.notes[1]
    assert any("edgetpu_compiler 16.0.384591198 mapped 5 of 5" in note for note in result.notes)


def test_a_failed_run_leaves_no_file_of_an_earlier_one(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    exported = exported_file(tmp_path)
    compiled_path(exported.path).write_bytes(b"of an earlier export")
    fake(TOO_LARGE, "sys.exit(1)")
    result = accompany(exported, {}, EdgeTPUOptions())
    assert not compiled_path(exported.path).exists() and result.metadata[KEY]["compiled"] == ""
    assert any("large activation tensors" in note for note in result.notes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "model-edgetpu.tflite"]


def test_the_compiler_can_be_left_alone(fake, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fake(WHOLE, COPY)
    result = accompany(exported_file(tmp_path), {}, EdgeTPUOptions(compiler=CompilerOptions(enabled=False)))
    assert result.metadata[KEY]["compiler"] is None and not compiled_path(result.path).exists()


def test_a_changed_export_is_refused(tmp_path: Path) -> None:
    exported = exported_file(tmp_path)
    damaged = bytearray(exported.path.read_bytes())
    damaged[20] ^= 1
    exported.path.write_bytes(bytes(damaged))
    with pytest.raises(ArtifactError, match="not the one that was exported"):
        accompany(exported, {}, EdgeTPUOptions())


def test_an_interruption_kills_the_compiler(fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    fake(WHOLE, "time.sleep(600)")
    killed: list[int] = []
    kill = edgetpu_compiler._kill

    def interrupt(self: object, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(edgetpu_compiler.subprocess.Popen, "communicate", interrupt)
    monkeypatch.setattr(edgetpu_compiler, "_kill", lambda process: (kill(process), killed.append(process.returncode)))
    with pytest.raises(KeyboardInterrupt):
        compile_model(MODEL)
    assert killed == [-9]


@pytest.mark.parametrize("wrong", [{"search_step": -1}, {"try_seconds": 0}, {"timeout_seconds": 0}])
def test_bad_compiler_options(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="allowed are"):
        replace(CompilerOptions(), **wrong)


def test_bad_input_type() -> None:
    with pytest.raises(UsageError, match="int8, uint8"):
        EdgeTPUOptions(input_type="float32")
    assert EdgeTPUOptions(input_type="uint8").compiler.enabled
