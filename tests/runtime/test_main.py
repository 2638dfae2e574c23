from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bundle_fakes import CONTENT, fake_manifest, seal

from yoloquant.bundle.writer import copy_runtime
from yoloquant.runtime import __main__ as command
from yoloquant.runtime.core.bundle_manifest import FILE_NAME, read
from yoloquant.runtime.errors import SourceError, TargetError, UsageError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with the real runtime and a model that nobody can load."""
    folder = tmp_path / "a bundle"
    for name in ("model/tiny.onnx", "labels.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CONTENT[name])
    copy_runtime(folder / "yoloquant_runtime")
    seal(folder, fake_manifest(folder))
    return folder


def run(*arguments: str, cwd: Path, isolated: bool = False) -> subprocess.CompletedProcess[str]:
    flags = ["-S", "-B", "-W", "error"] if isolated else ["-B"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *flags, *arguments], cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], {}),
        (["data=x", "threads=2"], {"data": "x", "threads": "2"}),
        (["--data", "x", "--threads=2"], {"data": "x", "threads": "2"}),
        (["source=rtsp://a?b=c"], {"source": "rtsp://a?b=c"}),
        (["--max-det", "-1"], {"max_det": "-1"}),
        (["labels="], {"labels": ""}),
    ],
)
def test_both_ways_of_writing_arguments(words: list[str], found: dict[str, str]) -> None:
    assert command.parse(words) == found


@pytest.mark.parametrize("words", [["data"], ["--data"], ["data=x", "data=y"], ["=x"], ["--"], ["data=1", "x"]])
def test_other_words_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        command.parse(words)


def test_info_needs_the_standard_library_alone(bundle: Path) -> None:
    done = run("-m", "yoloquant_runtime", "info", cwd=bundle, isolated=True)
    assert done.returncode == 0, done.stderr
    assert read(bundle).id in done.stdout and "all as exported" in done.stdout


def test_the_folder_runs_by_its_path_from_anywhere(bundle: Path, tmp_path: Path) -> None:
    done = run(str(bundle / "yoloquant_runtime"), "info", "json=out.json", cwd=tmp_path, isolated=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads((bundle / FILE_NAME).read_text())


def test_a_runtime_elsewhere_takes_the_bundle_by_name_or_working_folder(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["info", f"bundle={bundle}"]) == 0
    monkeypatch.chdir(bundle)
    assert command.main(["info"]) == 0
    monkeypatch.chdir(tmp_path)
    assert command.main(["info"]) == 2
    assert "is no bundle" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["verify", "info", "predict", "bench", "build_engine"])
def test_a_changed_bundle_is_refused_before_anything_beside_it_is_imported(bundle: Path, verb: str) -> None:
    (bundle / "numpy.py").write_text("import pathlib; pathlib.Path('planted').touch()")
    done = run("-m", "yoloquant_runtime", verb, cwd=bundle)
    assert done.returncode == 2
    assert "'numpy.py' can be executed" in done.stderr
    assert not (bundle / "planted").exists()


def test_help_and_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    assert command.main([]) == 2
    assert capsys.readouterr().out.count("Exit codes: 0 pass, 1 fail") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verfy"], "no verb 'verfy'"),
        (["verify", "dta=x"], "unknown argument 'dta'"),
        (["verify", "threads=none"], "threads=none"),
        (["info", "data=x"], "unknown argument 'data'"),
    ],
)
def test_wrong_usage(
    bundle: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle)
    assert command.main(words) == 2
    assert message in capsys.readouterr().err


def test_expected_id_is_asked_for(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["verify", f"bundle={bundle}", "expect=ab"]) == 2
    assert "expected was ab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "module", "key"),
    [("predict", "apps.predict", "model"), ("bench", "apps.bench", "model"), ("build_engine", "tensorrt", "bundle")],
)
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (0, 0),
        (3, 3),
        (TargetError("t"), 4),
        (SourceError("s"), 4),
        (UsageError("u"), 2),
        (OSError("o"), 2),
        (KeyboardInterrupt(), 130),
        (SystemError("a wrapper failed"), 4),
        (ModuleNotFoundError("No module named 'cv2'"), 4),
    ],
)
def test_other_verbs_are_handed_on(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, verb: str, module: str, key: str, answer: Any, code: int
) -> None:
    got: list[Any] = []

    def fake(arguments: dict[str, str], say: Any) -> int:
        got.append(dict(arguments))
        say("something")
        if isinstance(answer, BaseException):
            raise answer
        return int(answer)

    stand_in = ModuleType(f"yoloquant.runtime.{module}")
    stand_in.main = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"yoloquant.runtime.{module}", stand_in)
    assert command.main([verb, f"bundle={bundle}", "--source", "0"]) == code
    assert got == [{"source": "0", key: str(bundle)}]


def test_predict_and_bench_take_other_models(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[dict[str, str]] = []

    def fake(arguments: dict[str, str], say: Any) -> int:
        got.append(dict(arguments))
        return 0

    for verb in ("predict", "bench"):
        stand_in = ModuleType(f"yoloquant.runtime.apps.{verb}")
        stand_in.main = fake  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
        assert command.main([verb, "model=a,b"]) == 0
    assert got == [{"model": "a,b"}] * 2


def test_results_that_cannot_be_written_leave_nothing(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    assert command.main(["info", f"bundle={bundle}", f"json={tmp_path / 'taken'}"]) == 2
    assert f"'{tmp_path / 'taken'}' cannot be written" in capsys.readouterr().err
    shutil.rmtree(bundle)
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
@pytest.mark.parametrize("verb", ["verify", "info", "predict", "bench", "build_engine"])
def test_every_verb_explains_itself(verb: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([verb, word]) == 0
    text = capsys.readouterr().out
    assert verb in text and "  bundle" in text and len(text.splitlines()) >= 5


def test_files_beside_the_runtime_cannot_take_the_place_of_modules(bundle: Path) -> None:
    for name in ("json", "hashlib", "numpy", "argparse", "typing", "platform", "zipfile"):
        (bundle / f"{name}.py").write_text("raise SystemExit('taken over')")
    found = run("-m", "yoloquant_runtime", "info", cwd=bundle)
    assert "taken over" not in found.stdout + found.stderr
    imported = run("-c", "import yoloquant_runtime, json; print(json.__file__)", cwd=bundle)
    assert str(bundle) not in imported.stdout and imported.returncode == 0, imported.stderr
