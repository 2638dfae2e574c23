"""Distillation: nothing to learn where student and teacher agree, something to learn everywhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import tiny_images, tiny_yolo
from train_runs import larger, live, planned

from yoloquant.errors import UsageError
from yoloquant.training.distillation.distill import (
    LOGIT_FLOOR,
    FeatureExtractor,
    Output,
    Teacher,
    distillation_loss,
    feature_loss,
    head_outputs,
    layers_of,
)
from yoloquant.training.qat.prepare import prepare_qat

BOX, SCORE, MASK = (Output(p, "one2many", b) for p, b in (("box", "box"), ("score", "score"), ("mask", "mask")))
OUTPUTS = (BOX, SCORE, MASK)


def outputs(seed: int = 0, *, box: int = 64, grad: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"box": box, "score": 3, "mask": 8}
    found = {k: torch.randn(2, n, 4, 4, generator=generator) * 2 for k, n in sizes.items()}
    return {k: v.requires_grad_(grad) for k, v in found.items()}


@pytest.mark.parametrize("box", [64, 4])
def test_no_loss_and_no_gradient_where_both_agree(box: int) -> None:
    student, teacher = outputs(box=box, grad=True), outputs(box=box)
    losses = distillation_loss(student, teacher, OUTPUTS)
    assert set(losses) == {"distill_box", "distill_cls", "distill_other"}
    for loss in losses.values():
        assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    sum(losses.values()).backward()
    for value in student.values():
        assert float(value.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("box", [64, 4])
@pytest.mark.parametrize("name", ["box", "score", "mask"])
def test_each_difference_costs_and_a_step_down_lowers_it(box: int, name: str) -> None:
    student, teacher = outputs(box=box), outputs(box=box)
    student[name] = (
        student[name] + torch.linspace(-1, 1, student[name].numel()).reshape(student[name].shape)
    ).requires_grad_()
    loss = sum(distillation_loss(student, teacher, OUTPUTS).values())
    loss.backward()
    assert float(loss.detach()) > 1e-4
    student[name] = student[name].detach() - 0.1 * student[name].grad
    assert float(sum(distillation_loss(student, teacher, OUTPUTS).values())) < float(loss.detach())


def test_scores_are_compared_as_probabilities() -> None:
    """The divergence of two Bernoulli distributions, worked out on its own."""
    teacher, student = torch.tensor([[[[0.4]], [[-2.0]]]]), torch.tensor([[[[-0.3]], [[1.0]]]])
    p, q = teacher.double().sigmoid(), student.double().sigmoid()
    wanted = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()
    found = distillation_loss({"score": student}, {"score": teacher}, (SCORE,))["distill_cls"]
    assert float(found) == pytest.approx(float(wanted / 1.0), rel=1e-5)  # the teacher sees less than one object


def test_what_a_quantizer_clips_below_is_not_chased() -> None:
    teacher, student = outputs(), outputs(grad=True)
    teacher["score"] = torch.full_like(teacher["score"], LOGIT_FLOOR - 20)
    student["score"] = torch.full_like(teacher["score"], LOGIT_FLOOR - 1).requires_grad_()
    loss = distillation_loss(student, teacher, OUTPUTS)["distill_cls"]
    loss.backward()
    assert float(loss.detach()) == 0 and float(student["score"].grad.abs().max()) == 0


def test_boxes_weigh_by_what_the_teacher_sees() -> None:
    teacher, student = outputs(), outputs()
    teacher["score"] = torch.full_like(teacher["score"], -12.0)
    teacher["score"][0, 0, 1, 1] = 6.0
    for place, wanted in (((0, slice(None), 3, 3), 0.0), ((0, slice(None), 1, 1), 1.0)):
        student["box"] = teacher["box"].clone()
        student["box"][place] += torch.linspace(-2, 2, 64)
        found = float(distillation_loss(student, teacher, OUTPUTS)["distill_box"])
        assert (found > 0.1) is bool(wanted) and (found < 0.01) is not bool(wanted)


def test_coordinates_of_keypoints_count_whatever_visibilities_reach() -> None:
    """Both models see the same visibilities; what coordinates cost must not depend on how sure those are."""
    keypoint = replace(MASK, path="keypoint", branch="keypoint", numbers=3)
    plain = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    moved, last = torch.tensor([0.5, -0.5, 0.0]).reshape(3, 1, 1), torch.tensor([1.0, 1.0, 20.0]).reshape(3, 1, 1)

    def cost(teacher: torch.Tensor) -> float:
        heads = {"keypoint": teacher.flatten(1, 2), "score": torch.zeros(2, 3, 4, 4)}
        student = {**heads, "keypoint": (teacher + moved).flatten(1, 2)}
        return float(distillation_loss(student, heads, (SCORE, keypoint))["distill_other"])

    variance = float(plain[:, :, :2].var())
    assert cost(plain) == pytest.approx(0.25 / variance * 2 / 3, rel=1e-4)
    assert cost(plain * last) == pytest.approx(cost(plain), rel=1e-4)


@pytest.mark.parametrize("family", ["yolo11", "yolo26"])
def test_keypoints_are_told_from_other_branches(family: str) -> None:
    artifact, _ = planned(family, "pose")
    found = {(o.branch, o.numbers) for o in head_outputs(live(artifact), artifact.graph)}
    assert {numbers for branch, numbers in found if branch in {"box", "score"}} == {0}
    assert {numbers for branch, numbers in found if branch not in {"box", "score"}} == {3}


def test_classifiers_are_compared_by_their_class_distribution() -> None:
    logits = Output("linear", "one2many", "score")
    teacher, student = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    p = teacher.softmax(1)
    found = distillation_loss({"linear": student}, {"linear": teacher}, (logits,))["distill_cls"]
    assert float(found) == pytest.approx(float((p * (p.log() - torch.tensor(1 / 3).log())).sum()), rel=1e-5)


def test_features_are_compared_relative_to_their_spread() -> None:
    maps = {"a": torch.randn(1, 4, 8, 8), "b": torch.randn(1, 8, 4, 4)}
    assert float(feature_loss(maps, maps)) == 0
    near = float(feature_loss({p: m + 0.1 for p, m in maps.items()}, maps))
    scaled = float(feature_loss({p: (m + 0.1) * 5 for p, m in maps.items()}, {p: m * 5 for p, m in maps.items()}))
    assert near > 0 and scaled == pytest.approx(near, rel=1e-4)
    with pytest.raises(UsageError, match="at a it makes 6x8x8, the student 4x8x8; leave feature_weight at 0"):
        feature_loss({"a": torch.zeros(1, 4, 8, 8)}, {"a": torch.zeros(1, 6, 8, 8)})


def test_features_of_another_depth_are_refused() -> None:
    artifact, _ = planned()
    student: Any = live(artifact)
    with pytest.raises(UsageError, match=r"student's depth, and this one has no model\.99"):
        FeatureExtractor(student, head_outputs(student, artifact.graph), {"model.0": None, "model.99": None})


def test_a_branch_that_only_one_of_them_runs_is_not_compared() -> None:
    both, extra = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    loss = feature_loss({"both": both, "mine": extra}, {"both": both + 1, "theirs": extra})
    assert float(loss) == pytest.approx(float(feature_loss({"both": both}, {"both": both + 1})))


def test_every_layer_with_weights_is_compared_and_each_one_learns() -> None:
    artifact, plan = planned()
    student: Any = live(artifact)
    found = head_outputs(student, artifact.graph)
    teacher = Teacher(live(artifact), found, student, layers_of(student))
    tap = FeatureExtractor(student, found, layers_of(student))
    prepare_qat(student, artifact.graph, plan)
    student.model[-1].training = True
    images = torch.from_numpy(tiny_images(1)[0])
    for _ in range(2):  # a forward forgets the last one's
        student(images)
        teacher(images)
    ours, theirs = tap.take_features(), teacher.tap.take_features()
    layers = [m for m in student.model[:-1] if any(True for _ in m.parameters())]
    assert len(ours) == len(theirs) == len(layers) and not tap.take_features()
    loss = feature_loss(ours, theirs)
    loss.backward()
    assert 0 < float(loss.detach()) < 0.1
    for layer in layers:
        assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in layer.parameters())


def test_features_are_kept_only_where_asked_for() -> None:
    artifact, _ = planned()
    student: Any = live(artifact)
    tap = FeatureExtractor(student, head_outputs(student, artifact.graph))
    student(torch.from_numpy(tiny_images(1)[0]))
    assert not tap.take_features()


@pytest.mark.parametrize(("family", "groups"), [("yolo11", {"one2many"}), ("yolo26", {"one2one", "one2many"})])
def test_a_model_s_head_outputs_are_tapped(family: str, groups: set[str]) -> None:
    artifact, plan = planned(family)
    student = live(artifact)
    found = head_outputs(student, artifact.graph)
    assert {o.group for o in found} == groups and {o.branch for o in found} == {"box", "score"}
    teacher = Teacher(live(artifact), found, student)
    tap = FeatureExtractor(student, found)
    images = torch.from_numpy(tiny_images(1)[0])
    student.train()
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    student(images)
    values = tap.take()
    assert set(values) == {o.path for o in found} and not tap.take()
    losses = distillation_loss(values, teacher(images), found)
    assert all(float(v.detach()) == pytest.approx(0, abs=1e-5) for v in losses.values())
    prepare_qat(student, artifact.graph, plan)
    student.train()
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    student(images)
    assert float(sum(distillation_loss(tap.take(), teacher(images), found).values()).detach()) > 0
    tap.remove()
    student(images)
    assert not tap.values
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_a_teacher_of_another_head_is_refused() -> None:
    artifact, _ = planned()
    student = live(artifact)
    found = head_outputs(student, artifact.graph)
    for other in (tiny_yolo("yolo11", nc=5), tiny_yolo("yolo26"), tiny_yolo("yolo11", "classify")):
        with pytest.raises(UsageError, match="teacher"):
            Teacher(other.model, found, student)


def test_a_larger_teacher_is_taken() -> None:
    artifact, _ = planned()
    student: Any = live(artifact)
    found = head_outputs(student, artifact.graph)
    teacher = Teacher(larger().model, found, student)
    images = torch.from_numpy(tiny_images(1)[0])
    student.model[-1].training = True
    tap = FeatureExtractor(student, found)
    student(images)
    losses = distillation_loss(tap.take(), teacher(images), found)
    assert float(sum(losses.values()).detach()) > 1e-3
