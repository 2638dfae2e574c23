"""Whole analyses of small models: right numbers, resumed to the bit, and clear errors."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_models import tiny_host, write_images
from tiny_models import tiny_yolo

from yoloquant.bridge.checkpoint import load_model
from yoloquant.data.dataset import LabelledImage, ValidationSet
from yoloquant.errors import DataError, PruneError, UsageError, YoloquantError
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import evaluate
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.graph.traced_model import TracedModel
from yoloquant.pruning.groups import Atom, Group
from yoloquant.pruning.remove_channels import remove_channels
from yoloquant.quantization.artifact import Artifact
from yoloquant.sensitivity import AnalyzeOptions, Sensitivity, analyze
from yoloquant.sensitivity.analyze_options import AnalysisMetric
from yoloquant.sensitivity.images import Images, open_images
from yoloquant.sensitivity.parts import Part
from yoloquant.sensitivity.pruning_groups import CUT, MASK, PruneSubject, parts_of
from yoloquant.sensitivity.raw_outputs import LiveDistance
from yoloquant.sensitivity.score import Scorer

ONLY = ("model.0", "model.4.cv1", "model.23.cv3.0.0.1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("set"), train=10, val=5)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_yolo("yolo11")


def options(**changes: Any) -> AnalyzeOptions:
    return AnalyzeOptions(**{"imgsz": 64, "images": 3, "round_to": 2, "only": ONLY, "training_images": 8, **changes})


@pytest.fixture(scope="module")
def artifact(model: Any) -> Artifact:
    host = load_model(model)
    return Artifact(TracedModel.of(host, (64, 64)), {})


@pytest.fixture(scope="module")
def images(data: Path, artifact: Artifact) -> Images:
    return open_images(data, options(), artifact.info)


@pytest.fixture(scope="module")
def subject(artifact: Artifact, images: Images) -> PruneSubject:
    return PruneSubject(artifact, images, (), options())


def test_nothing_pruned_is_exactly_no_distance(subject: PruneSubject) -> None:
    assert subject.baseline() == 0.0


def test_a_closed_group_costs_what_a_cut_one_costs(subject: PruneSubject, artifact: Artifact, images: Images) -> None:
    distance = LiveDistance(artifact.model.module, artifact.graph, images.batches)
    assert {p.name for p in subject.parts} == set(ONLY)
    for part in subject.parts:
        score, how = subject.measure(part)
        small = copy.deepcopy(artifact.model.module)
        remove_channels(small, subject._network, subject.dropped(part))
        assert how == MASK and score > 0
        assert score == pytest.approx(distance(small), rel=1e-3)


def test_layers_that_are_not_run_again_change_no_bit(subject: PruneSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    reused = [subject.measure(p)[0] for p in subject.parts]
    monkeypatch.setattr("yoloquant.sensitivity.raw_outputs.first_changed", lambda *_: 0)
    assert [subject.measure(p)[0] for p in subject.parts] == reused


def test_where_closing_is_not_exact_channels_are_cut(artifact: Artifact, images: Images) -> None:
    module = copy.deepcopy(artifact.model.module)
    module.model[0].act = torch.nn.Sigmoid()  # type: ignore[index]
    host = load_model(module)
    odd = Artifact(TracedModel(host, artifact.info))
    found = PruneSubject(odd, images, (), options(only=ONLY[:2]))
    ways = {p.name: found.measure(p) for p in found.parts}
    assert ways["model.0"][1] == CUT and ways["model.4.cv1"][1] == MASK
    part = next(p for p in found.parts if p.name == "model.0")
    small = copy.deepcopy(host.module)
    remove_channels(small, found._network, found.dropped(part))
    assert LiveDistance(host.module, odd.graph, images.batches)(small) == found.measure(part)[0]


def test_parts_keep_to_what_a_group_allows() -> None:
    group = Group("a", (Atom(tuple(range(1, 33)), 1),), 32)
    assert [(p.kept, p.asked) for p in parts_of(group, (0.25, 0.5, 0.75), 8)] == [
        (24, (0.25,)),
        (16, (0.5,)),
        (8, (0.75,)),
    ]
    assert parts_of(group, (0.3, 0.9, 0.95), 16) == [Part("a", 0.5, (0.3, 0.9, 0.95), 16)]
    assert parts_of(group, (0.5,), 32) == []


def labelled(images: Images, model: TorchRunner) -> Images:
    """The images with what a model is sure of as their labels, so that mAP is no zero."""
    found = Scorer(images, AnalysisMetric.FIDELITY, model).detections(model)
    items = []
    for item, seen, (_, where) in zip(images.data.images, found, images.inputs, strict=True):
        confident = seen.above(0.25)
        corners = (confident.xyxy - np.array([where.left, where.top] * 2)) / np.array([*where.extent[::-1]] * 2)
        low, high = corners[:, :2], corners[:, 2:]
        boxes = np.concatenate([(low + high) / 2, high - low], axis=1).astype(np.float32)
        items.append(LabelledImage(item.path, confident.class_id, boxes))
    data = images.data
    return Images(ValidationSet(tuple(items), data.names, data.source), images.info)


@pytest.mark.parametrize("metric", ["map", "fidelity"])
def test_scores_are_those_of_validation(data: Path, metric: str) -> None:
    host = tiny_host()
    artifact = Artifact(TracedModel.of(host, (64, 64)), {})
    other = copy.deepcopy(artifact.graph.module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.01)
    runners = {"fp32": TorchRunner(artifact.graph.module, artifact.info), "other": TorchRunner(other, artifact.info)}
    wanted = options(metric=metric, images=5)
    images = labelled(open_images(data, wanted, artifact.info), runners["fp32"])
    scorer = Scorer(images, wanted.metric, runners["fp32"])
    comparer = Comparer(evaluate(runners, images.data))
    if metric == "map":
        found = [comparer.accuracy(name).map50_95 for name in runners]  # type: ignore[union-attr]
        assert [scorer(r) for r in runners.values()] == pytest.approx(found, rel=1e-12)
        assert found[0] > found[1] > 0
    else:
        wanted_score = comparer.compare("other").comparison.fidelity.value  # summed in another order
        assert 0 < wanted_score < 1 and scorer(runners["other"]) == pytest.approx(wanted_score, rel=1e-12)


@pytest.mark.slow
def test_an_interrupted_analysis_goes_on_to_the_same_bits(
    model: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = analyze(model, data=data, options=options())

    def stop(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyze(model, data=data, options=options(folder=tmp_path), progress=stop)
    measured: list[Part] = []
    plain = PruneSubject.measure
    monkeypatch.setattr(PruneSubject, "measure", lambda self, part: (measured.append(part), plain(self, part))[1])
    calls: list[tuple[int, int, str]] = []
    again = analyze(model, data=data, options=options(folder=tmp_path), progress=lambda *a: calls.append(a))
    assert again == whole
    assert len(measured) == len(whole.points) - 2
    assert [c[:2] for c in calls] == [(i, len(whole.points)) for i in range(1, len(whole.points) + 1)]
    assert all("left" in what for _, _, what in calls[2:]) and calls[-1][2].endswith("0 s left")
    assert Sensitivity.load(again.save(tmp_path / "found.json")) == again
    assert again.protected(math.inf) == {n: max(p.ratio or 0 for p in again.parts[n]) for n in ONLY}


def test_statistics_taken_anew_are_in_the_baseline_too(model: Any, data: Path) -> None:
    found = analyze(model, data=data, options=options(recalibrate_bn=True, only=ONLY[:1], ratios=(0.5,)))
    assert found.baseline > 0  # other images than those that the model's statistics came from
    (point,) = found.points
    assert point.drop == pytest.approx(point.score - found.baseline) and "training" in found.settings


def test_map_of_a_live_model(data: Path) -> None:
    module = tiny_yolo("yolo11")
    module.model.names = dict(enumerate(ValidationSet.from_yaml(data).names))
    found = analyze(module, data=data, options=options(metric="map", only=ONLY[:1], ratios=(0.5,)))
    assert found.settings["options"]["recalibrate_bn"] is True
    assert all(0 <= p.score <= 1 and p.drop == found.baseline - p.score for p in found.points)  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("per", ["layer", "point"])
def test_quantization(model: Any, data: Path, per: str) -> None:
    only = ("model.0*", "model.23.cv2.0.2*")
    wide, narrow = (
        analyze(
            model,
            data=data,
            options=options(kind="quant", per=per, only=only, weight_bits=bits, activation_bits=bits),
        )
        for bits in (8, 3)
    )
    assert wide.baseline == 0.0 and list(wide.parts) == list(narrow.parts)
    assert len(wide.parts) == 2 if per == "layer" else len(wide.parts) > 4
    coarse = sum(p.drop > wide.parts[p.name][0].drop for p in narrow.points)  # type: ignore[operator]
    assert coarse >= 0.8 * len(narrow.points)
    assert any(p.drop > 0 for p in wide.points)  # type: ignore[operator]


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"metric": "loss"}, UsageError, "metric='loss' is not supported; allowed are distill, fidelity, map"),
        ({"kind": "both"}, UsageError, "kind='both' is not supported; allowed are prune, quant"),
        ({"ratios": (0.5, 1.0)}, UsageError, "above 0 and below 1"),
        ({"ratios": ()}, UsageError, "above 0 and below 1"),
        ({"ratios": ("x",)}, UsageError, "above 0 and below 1"),
        ({"images": 0}, UsageError, "images=0"),
        ({"weight_bits": 1}, UsageError, "weight_bits=1"),
        ({"only": ("model.99*",)}, UsageError, "model.99.*matches no prunable layer"),
        ({"round_to": 4096}, PruneError, "lower round_to"),
        ({"criterion": "taylor"}, PruneError, "taylor"),
        ({"images": 1}, DataError, "at least two images"),
        ({"kind": "quant", "scheme": "auto"}, UsageError, "one at a time"),
        ({"imgsz": 65}, UsageError, "multiple of"),
    ],
)
def test_bad_input(model: Any, data: Path, changes: dict[str, Any], error: type[YoloquantError], words: str) -> None:
    with pytest.raises(error, match=words):
        analyze(model, data=data, options=options(**changes))


def test_labels_count_in_the_order_of_the_models_classes(data: Path, artifact: Artifact) -> None:
    wanted = ValidationSet.from_yaml(data)
    model = replace(artifact.info, names=tuple(reversed(wanted.names)))
    found = open_images(data, options(metric="map", images=5), model).data
    assert found.names == model.names and found.boxes == wanted.boxes > 0
    for one, other in zip(found.images, wanted.images, strict=True):
        assert one.classes.tolist() == [len(model.names) - 1 - i for i in other.classes.tolist()]


def test_bad_data(model: Any, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs data="):
        analyze(model, data=None, options=options())
    with pytest.raises(DataError, match="does not exist"):
        analyze(model, data=tmp_path / "none.yaml", options=options())
    with pytest.raises(DataError, match="needs labels"):
        analyze(model, data=data.parent / "images" / "val", options=options(metric="map"))
    with pytest.raises(DataError, match="has other classes than the model: class 0 is 'cat' there and 'thing 0'"):
        analyze(model, data=data, options=options(metric="map"))
    with pytest.raises(DataError, match="a box without a polygon"):  # every task is scored, by labels of its own
        analyze(tiny_yolo("yolo11", "segment"), data=data, options=options(metric="map"))
