from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ARTIFACT, CELLS, draw_data, export_colours

from yoloquant.bundle import BundleOptions, write
from yoloquant.errors import BundleError, DataError, MissingRuntimeError, TargetError
from yoloquant.runtime import __main__ as command
from yoloquant.runtime.apps.golden import Golden
from yoloquant.runtime.apps.verify import Verification, VerifyOptions, VerifyResult, verify
from yoloquant.runtime.backends import BackendOptions
from yoloquant.runtime.core.bundle_manifest import FILE_NAME, BundleManifest, Requirement, read
from yoloquant.runtime.core.folder_check import FileEntry, file_sha256


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("data") / "set", 4)


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose accuracy was measured on the data."""
    exported = export_colours(tmp_path_factory.mktemp("model") / "colours.onnx")
    folder = tmp_path_factory.mktemp("bundles") / "colours-onnx"
    return write(ARTIFACT, exported, device="onnx", folder=folder, options=BundleOptions(data=data)).path


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def resealed(folder: Path, change: Callable[[BundleManifest], BundleManifest] = lambda m: m) -> None:
    """Give a changed bundle hashes that fit, as if it had been exported so."""
    manifest = change(read(folder, check=False))
    files = {p: FileEntry(file_sha256(folder / p), (folder / p).stat().st_size) for p in manifest.files}
    (folder / FILE_NAME).write_text(replace(manifest, files=files).signed().text())


def results(outcome: Verification) -> dict[str, VerifyResult]:
    return {check.name: check.result for check in outcome.checks}


def with_model(folder: Path, gain: float) -> None:
    """Another device: the same bundle, but its network computes something else."""
    export_colours(folder / "model" / "colours.onnx", gain)
    resealed(folder)


def test_a_bundle_verifies_where_it_was_made(made: Path, data: Path) -> None:
    outcome = verify(made, VerifyOptions(data=str(data.parent)))
    assert results(outcome) == dict.fromkeys(
        ["files", "runtime", "golden outputs", "golden detections", "accuracy"], VerifyResult.PASS
    )
    assert (outcome.result, outcome.exit_code, outcome.bundle) == (VerifyResult.PASS, 0, read(made).id)
    outputs, detections, accuracy = (check.values for check in outcome.checks[2:])
    assert outputs["same_input"] and all(value < 1e-3 for value in outputs["differences"].values())
    assert detections["same"] == detections["total"] == 2 * 3 * 6
    assert accuracy["drop"] == 0 and accuracy["metrics"]["map50_95"] == pytest.approx(0.995, abs=1e-6)
    assert json.dumps(outcome.to_dict(), allow_nan=False)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_matter(made: Path, threads: int) -> None:
    assert verify(made, VerifyOptions(backend=BackendOptions(threads=threads))).exit_code == 0


@pytest.mark.parametrize(
    ("gain", "outputs", "detections"),
    [
        (1.05, VerifyResult.PASS, VerifyResult.PASS),
        (1.3, VerifyResult.FAIL, VerifyResult.FAIL),
        (0.2, VerifyResult.FAIL, VerifyResult.FAIL),
    ],
)
def test_a_device_that_computes_otherwise_fails(
    bundle: Path, gain: float, outputs: VerifyResult, detections: VerifyResult
) -> None:
    with_model(bundle, gain)
    found = results(verify(bundle))
    assert found["golden outputs"] is outputs
    if gain < 1:
        assert found["golden detections"] is detections


def test_red_and_blue_exchanged_fail(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from yoloquant.runtime.apps import verify as module

    def exchanged(path: Path) -> np.ndarray:
        image: np.ndarray = original(path)
        return np.ascontiguousarray(image[..., ::-1])

    original = module.read_image
    monkeypatch.setattr(module, "read_image", exchanged)
    outcome = verify(bundle)
    assert outcome.exit_code == 1
    assert results(outcome)["golden outputs"] is results(outcome)["golden detections"] is VerifyResult.FAIL
    check = next(c for c in outcome.checks if c.name == "golden outputs")
    assert not check.values["same_input"] and "differ in single bits" in check.message
    assert check.values["images"][0]["missing"] and check.values["images"][0]["unexpected"]


def test_nan_outputs_fail(bundle: Path) -> None:
    with_model(bundle, math.nan)
    with pytest.raises(TargetError, match="NaN"):
        verify(bundle)


def test_lower_accuracy_fails_and_higher_passes(bundle: Path, data: Path) -> None:
    def expecting(value: float) -> Verification:
        def change(manifest: BundleManifest) -> BundleManifest:
            assert manifest.accuracy is not None
            return replace(manifest, accuracy=replace(manifest.accuracy, metrics={"map50_95": value, "map50": value}))

        resealed(bundle, change)
        return verify(bundle, VerifyOptions(data=str(data)))

    assert expecting(0.95).exit_code == 0
    outcome = expecting(0.995 + 0.0101)
    assert outcome.exit_code == 1
    assert results(outcome)["accuracy"] is VerifyResult.FAIL
    assert "a drop of +1.01 points (limit 1)" in outcome.checks[-1].message


def test_other_data_or_no_figure_are_inconclusive(bundle: Path, data: Path, tmp_path: Path) -> None:
    other = draw_data(tmp_path / "other", 3)
    outcome = verify(bundle, VerifyOptions(data=str(other)))
    assert outcome.exit_code == 3 and "of other images or labels" in outcome.checks[-1].message
    assert verify(bundle, VerifyOptions(data=str(data), limit=2)).exit_code == 3
    resealed(bundle, lambda m: replace(m, accuracy=None))
    outcome = verify(bundle, VerifyOptions(data=str(data)))
    assert outcome.exit_code == 3 and "the export machine measured none" in outcome.checks[-1].message


def test_a_failure_outweighs_an_inconclusive_check(bundle: Path, tmp_path: Path) -> None:
    with_model(bundle, 0.2)
    assert verify(bundle, VerifyOptions(data=str(draw_data(tmp_path / "other", 3)))).exit_code == 1


def test_unusable_data_are_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        verify(made, VerifyOptions(data=str(tmp_path / "nothing")))


def test_a_too_old_runtime_is_refused(bundle: Path) -> None:
    resealed(bundle, lambda m: replace(m, requires=(Requirement("onnxruntime", "onnxruntime", "999.1"),)))
    with pytest.raises(TargetError, match=r"onnxruntime .* is installed, this bundle needs 999\.1 or newer"):
        verify(bundle)
    assert command.main(["verify", f"bundle={bundle}"]) == 4


def test_a_missing_runtime_is_refused(bundle: Path) -> None:
    resealed(bundle, lambda m: replace(m, requires=(Requirement("no_such_runtime", "no-such-runtime", "1"),)))
    with pytest.raises(MissingRuntimeError, match="pip install"):
        verify(bundle)


def test_a_model_that_does_not_load_could_not_run(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "model" / "colours.onnx").write_bytes(b"no model")
    resealed(bundle)
    assert command.main(["verify", f"bundle={bundle}"]) == 4
    assert "cannot load" in capsys.readouterr().err


def test_what_nobody_expected_is_one_line_and_a_log(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def surprise(*_: object) -> None:
        raise RuntimeError("a\nsurprise")

    monkeypatch.setattr("yoloquant.runtime.apps.verify.verify", surprise)
    assert command.main(["verify", f"bundle={bundle}"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: RuntimeError: a surprise; please report it with ")
    log = Path(line.rpartition(" ")[2])
    assert "Traceback" in log.read_text() and "surprise" in log.read_text()
    log.unlink()


def golden_of(manifest: BundleManifest, **changes: Any) -> BundleManifest:
    content = dict(manifest.golden)
    content["images"] = [{**content["images"][0], **changes}]
    return replace(manifest, golden=content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "../secret.png"}, "no path inside the bundle"),
        ({"detections": [[1, 2, 3]]}, "golden inputs in the manifest are damaged"),
        ({"detections": "x"}, "golden inputs in the manifest are damaged"),
        ({"outputs": "labels.txt"}, "golden outputs 'labels.txt' are damaged"),
    ],
)
def test_damaged_golden_inputs_are_refused(bundle: Path, changes: dict[str, Any], message: str) -> None:
    resealed(bundle, lambda m: golden_of(m, **changes))
    with pytest.raises(BundleError, match=message):
        verify(bundle)


def test_golden_outputs_of_another_shape_are_refused(bundle: Path) -> None:
    item = Golden.from_dict(read(bundle).golden).images[0]
    np.savez_compressed(bundle / item.outputs, np.zeros((1, 7, CELLS + 1), np.float32))
    resealed(bundle)
    with pytest.raises(BundleError, match="have shapes"):
        verify(bundle)


def test_the_command_prints_and_writes_what_it_measured(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    assert command.main(["verify", f"--bundle={made}", "--data", str(data), f"json={out}"]) == 0
    text = capsys.readouterr().out
    assert "pass         golden detections: 36 of 36 detections agree" in text and text.endswith(" s\n")
    written = json.loads(out.read_text())
    assert (written["result"], written["exit_code"], written["bundle"]) == ("pass", 0, read(made).id)
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_load_opens_a_proven_bundle_only(bundle: Path) -> None:
    from yoloquant.runtime import load

    image = np.zeros((64, 96, 3), np.uint8)
    image[8:16, 16:24, 2] = 250
    with load(bundle) as detector:
        found = detector(image)
    assert found.xyxy.tolist() == [[16, 8, 24, 16]] and found.class_id.tolist() == [0]
    (bundle / "labels.txt").write_text("blue\n")
    with pytest.raises(BundleError, match=r"labels\.txt"):
        load(bundle)
