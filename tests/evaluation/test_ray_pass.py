"""A pass in parts gives what one process gives: put together here, and made on a real cluster of two machines."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_export_artifact
from validation_fakes import NAMES, decoded, label_rows, write_dataset

from yoloquant import targets
from yoloquant.cluster import connected
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import TargetError, UsageError
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation
from yoloquant.evaluation.merge import merged
from yoloquant.evaluation.pass_job import PassJob
from yoloquant.evaluation.ray_pass import RayPass, shard
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.evaluation.validate import validate
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.runtime.core.letterbox import place
from yoloquant.runtime.core.model_info import HeadLayout, ModelInfo, Task
from yoloquant.runtime.core.runner import Runner
from yoloquant.runtime.tasks import spec_of
from yoloquant.sensitivity.analyze_options import AnalyzeOptions
from yoloquant.sensitivity.images import Images
from yoloquant.sensitivity.quantization_points import QuantSubject
from yoloquant.sensitivity.ray_sweep import measured_on
from yoloquant.summarized import plain
from yoloquant.targets.exports import ExportResult

COUNT = 12


def test_parts_are_equal_and_hold_every_image_once() -> None:
    assert shard(7, 3) == [range(0, 2), range(2, 4), range(4, 7)]
    assert shard(2, 5) == [range(0, 1), range(1, 2)]
    assert shard(0, 2) == [range(0, 0)]


def opening(outputs: dict[str, np.ndarray], broken: str = "", marks: Path | None = None):  # type: ignore[no-untyped-def]
    """Open a model that knows images by their pixels, whoever runs it; all of it travels by value.

    Args:
        outputs: Head output of every image, by the hash of its pixels.
        broken: The image that it fails on.
        marks: Where every process leaves its machine's name; the first one ends itself in the middle.
    """

    class Knowing(Runner):
        info = ModelInfo(Task.DETECT, NAMES, (64, 64))
        layout = HeadLayout.DECODED

        def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
            key = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
            if marks is not None:
                end_once(marks, list(outputs).index(key))
            if key == broken:
                raise RuntimeError("device lost")
            return (outputs[key],)

    def end_once(marks: Path, index: int) -> None:
        import ray

        (marks / f"machine-{ray.get_runtime_context().get_node_id()}").touch()
        if index == 8:
            try:
                (marks / "killed").mkdir()
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

    return Knowing


@pytest.fixture
def data(tmp_path: Path) -> ValidationSet:
    return ValidationSet.from_yaml(write_dataset(tmp_path / "set", count=COUNT))


def job(data: ValidationSet, marks: Path | None = None) -> PassJob:
    """A baseline, a model that differs, one that fails on two images, and one that cannot be opened."""
    where = place((48, 64), (64, 64))
    rows = label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images], score=0.9)
    prepare = spec_of(Task.DETECT).prepare
    keys = [
        hashlib.sha256(np.ascontiguousarray(prepare(data.read(i), (64, 64))[0]).tobytes()).hexdigest()
        for i in range(len(data))
    ]
    exact = {key: decoded(r) for key, r in zip(keys, rows, strict=True)}
    moved = {key: decoded(r + np.array([i / 4, 0, i / 4, 0, 0, 0])) for i, (key, r) in enumerate(zip(keys, rows))}  # noqa: B905

    def missing() -> Runner:
        raise TargetError("no runtime")

    openings = {
        "fp32": opening(exact, marks=marks),
        "moved": opening(moved),
        "lost": opening(exact, broken=keys[5]),
        "missing": missing,
    }
    return PassJob(openings, {}, data, EvaluateOptions(warmup=0))


def told(evaluation: Evaluation) -> str:
    """All of it but times, to the last bit."""
    records = {
        name: [plain(r.detections), plain(r.label_matches), plain(r.reference_matches), list(r.infer_ms)]
        for name, r in evaluation.records.items()
    }
    rest = [evaluation.errors, plain(evaluation.labels), plain(evaluation.references), plain(evaluation.letterboxes)]
    return json.dumps([records, *rest], default=lambda a: [str(a.dtype), a.shape, np.asarray(a).tobytes().hex()])


def test_parts_put_together_are_the_whole(data: ValidationSet) -> None:
    whole = job(data).run()
    parts = [job(data).run(only=span) for span in shard(COUNT, 3)]
    assert [len(p.evaluation.baseline.detections) for p in parts] == [4, 4, 4]
    assert told(merged([p.evaluation for p in parts], data, 1.0)) == told(whole.evaluation)
    assert list(whole.evaluation.records) == ["fp32", "moved"] and whole.unopened == {"missing": "no runtime"}
    assert "device lost (on image 005.png)" in whole.evaluation.errors["lost"]


def test_a_traced_model_travels(tmp_path: Path) -> None:
    """Workers are sent the float model as it stands: what it computes there is the same to the last bit."""
    artifact = tiny_export_artifact()
    runner = TorchRunner(artifact.graph.module, artifact.info, 1)
    image = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    for here, there in zip(runner(image), pickle.loads(pickle.dumps(runner))(image), strict=True):
        np.testing.assert_array_equal(here, there)


def test_a_cluster_is_asked_for_before_work(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    nothing = ExportResult(tmp_path, ())
    options = ValidateOptions(on="ray", address="127.0.0.1:1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"):
        validate(tmp_path / "missing.pt", nothing, source=tmp_path, options=options)
    with pytest.raises(UsageError, match=r"shards=2 is for on=ray; give on=ray too"):
        ValidateOptions(shards=2)


@pytest.mark.slow
def test_two_machines_and_a_killed_worker_give_what_one_process_gives(
    tmp_path: Path, data: ValidationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # beside other tests, workers of Ray's niceness wait for minutes
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        marks = tmp_path / "marks"
        marks.mkdir()
        with connected(cluster.address) as ray:
            seen: list[tuple[int, int, str]] = []
            found = RayPass(ray, threads=1, shards=4).run(job(data, marks), lambda *a: seen.append(a))
        assert (marks / "killed").is_dir() and len(list(marks.glob("machine-*"))) == 2
        assert told(found.evaluation) == told(job(data).run().evaluation)
        assert found.unopened == {"missing": "no runtime"}
        assert len(seen) == 4 and seen[-1] == (COUNT, COUNT, "4 of 4 parts")
        _whole_validation(tmp_path, cluster.address)
        _analysis(data, cluster.address)
    finally:
        cluster.shutdown()


def _whole_validation(tmp_path: Path, address: str) -> None:
    """The whole verb on real artifacts: the report of parts is that of one process."""
    folder = tmp_path / "exports"
    folder.mkdir()
    target = targets.get("onnxruntime")
    model = tiny_export_artifact(schemes=(target.scheme,))
    export = target.export(model, folder, "tiny")
    yaml = write_dataset(tmp_path / "real", count=5)
    yaml.write_text(yaml.read_text().replace(", ".join(NAMES), "thing 0, thing 1, thing 2"))
    gate = {"name": "g", "limits": {"fidelity": 0.5}, "min_images": 1, "min_detections": 1, "baseline_map": 0}
    how = {"gate": gate, "bootstrap": 100, "memory": False, "latency": False, "threads": 1}
    outcome = ExportResult(folder, (export,))
    alone = validate(model, outcome, data=yaml, options=ValidateOptions(**how))
    parts = ValidateOptions(**how, on="ray", shards=2, address=address)
    fanned = validate(model, outcome, data=yaml, options=parts)
    assert fanned.baseline == alone.baseline and fanned.targets == alone.targets
    assert fanned.targets[0].comparison is not None and not fanned.targets[0].error
    assert (fanned.examples, fanned.notes, fanned.images) == (alone.examples, alone.notes, alone.images)


def _analysis(data: ValidationSet, address: str) -> None:
    """Parts of an analysis measured by workers: every score to the last bit."""
    target = targets.get("onnxruntime")
    artifact = tiny_export_artifact(schemes=(target.scheme,))
    options = AnalyzeOptions(kind="quant", only=("model.0", "model.1"))  # type: ignore[arg-type]
    make = partial(QuantSubject, artifact, artifact.plan_for(target.scheme), Images(data, artifact.info), options)
    subject = make()
    with connected(address) as ray:
        found = dict(measured_on(ray, subject, make, subject.parts))
    assert found == {part: subject.measure(part) for part in subject.parts}
    assert len(found) > 1 and all(score > 0 for score, _ in found.values())
