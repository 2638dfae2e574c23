"""Distillation of raw head outputs, so that training needs no labels and forgets nothing.

Scores are compared as probabilities, boxes as distributions (or offsets), both weighted by how much the teacher sees at
a place: most of an image is background that need not be matched to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from ultralytics.nn.modules import Conv

from ...errors import UsageError
from ...graph.head_outputs import head_outputs as raw_heads
from ...graph.trace import Graph

Features = Mapping[str, Tensor | None]
"""Modules whose outputs are compared, by path, and which channels of each; None for all."""

_OFF = "leave feature_weight at 0"
LOGIT_FLOOR = -7.0  # sigmoid 0.0009: what a quantizer clips below must not be chased


@dataclass(frozen=True)
class Output:
    """One raw head output.

    Attributes:
        path: Of the module that makes it, relative to the head.
        group: Outputs that belong together: ``one2one`` or ``one2many``.
        branch: ``box``, ``score`` or the name of another branch.
        numbers: Of one keypoint, whose last one is its visibility; 0 where there is none.
    """

    path: str
    group: str
    branch: str
    numbers: int = 0


def head_outputs(model: nn.Module, graph: Graph) -> tuple[Output, ...]:
    """The raw outputs of a live model's head, of both branches where it has two."""
    layers: Any = model.model
    base = f"model.{len(layers) - 1}."
    modules = dict(layers[-1].named_modules())
    outputs: dict[str, Output] = {}
    for head in raw_heads(graph):
        op = head.op
        relative = op.module.removeprefix(base)
        branch = op.branch if op.branch in {"box", "score"} else relative.split(".")[0].removeprefix("one2one_")
        plain = relative.removeprefix("one2one_")
        # only one branch is in the traced graph; both are trained
        for path, group in ((plain, "one2many"), (f"one2one_{plain}", "one2one")):
            if path in modules:
                outputs[path] = Output(path, group, branch, head.keypoint)
    return tuple(outputs.values())


def layers_of(model: nn.Module) -> Features:
    """Every layer before the head that has weights, with all of its channels."""
    layers: Any = model.model
    # a layer without weights (concat, upsampling) repeats what those before it computed
    return {f"model.{i}": None for i, layer in enumerate(layers[:-1]) if any(True for _ in layer.parameters())}


class FeatureExtractor:
    """Keeps the last raw outputs of a head, and what other modules compute.

    Args:
        model: The live model.
        outputs: Raw outputs of its head.
        features: Paths of modules whose outputs are kept, and which of their channels; None for all.

    Raises:
        UsageError: The model lacks one of these modules.
    """

    def __init__(self, model: nn.Module, outputs: Iterable[Output], features: Features | None = None) -> None:
        layers: Any = model.model
        self.values: dict[str, Tensor] = {}
        self.features: dict[str, Tensor] = {}
        self._handles = [layers[-1].get_submodule(o.path).register_forward_hook(self._keep(o.path)) for o in outputs]
        if features:
            # maps of a forward that nobody took, as of a validation, would hold its memory until the next one
            self._handles.append(layers[0].register_forward_pre_hook(self._forget_features))
        modules = dict(model.named_modules())
        for path, channels in (features or {}).items():
            if path not in modules:
                raise UsageError(
                    f"feature_weight needs a teacher of the student's depth, and this one has no {path}; {_OFF}"
                )
            self._handles.append(modules[path].register_forward_hook(self._keep_features(path, channels)))

    def _keep(self, path: str) -> Any:
        def hook(module: nn.Module, args: Any, result: Tensor) -> None:
            self.values[path] = result

        return hook

    def _forget_features(self, module: nn.Module, args: Any) -> None:
        self.features = {}

    def _keep_features(self, path: str, channels: Tensor | None) -> Any:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            if isinstance(result, Tensor):
                self.features[path] = result if channels is None else result.index_select(1, channels)

        return hook

    def take(self) -> dict[str, Tensor]:
        """The outputs of the last forward, which are forgotten."""
        # forgotten at once: they hold the graph of the whole forward
        values, self.values = self.values, {}
        return values

    def take_features(self) -> dict[str, Tensor]:
        """What the modules computed in the last forward, by path; it is forgotten."""
        features, self.features = self.features, {}
        return features

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()


class Teacher:
    """A float model that shows what its head should say.

    Args:
        model: The float model; put into evaluation mode.
        outputs: The student's raw outputs; the teacher must have the same.
        student: The model that learns.
        features: Modules whose outputs are kept too, as for ``FeatureExtractor``.

    Raises:
        UsageError: The teacher's head differs from the student's.
    """

    def __init__(
        self, model: nn.Module, outputs: tuple[Output, ...], student: nn.Module, features: Features | None = None
    ) -> None:
        # without gradients, convolutions run a third faster on channels-last images, on a CPU too
        self.model = merged(model.eval().requires_grad_(False)).to(memory_format=torch.channels_last)
        layers: Any = model.model
        student_layers: Any = student.model
        theirs, ours = (dict(m[-1].named_modules()) for m in (layers, student_layers))
        # said before the first batch, where the difference would break a loss in the middle
        for o in outputs:
            size, wanted = (_channels(m.get(o.path)) for m in (theirs, ours))
            if size != wanted:
                raise UsageError(
                    f"the teacher's head has {size or 'no'} channels at {o.path}, the student's {wanted}; take a "
                    "teacher of the same family and task, trained on the same classes"
                )
        self.outputs = outputs
        self.tap = FeatureExtractor(model, outputs, features)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs by path for images (batch, channels, height, width)."""
        layers: Any = self.model.model
        # set at every call: Ultralytics' heads decode in evaluation mode, into which the model was put
        layers[-1].training = True  # raw outputs, no decode; BatchNorm stays in evaluation mode
        self.model(images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images)
        return self.tap.take()


def merged(model: nn.Module) -> nn.Module:
    """Fold BatchNorm into its convolution wherever a block can run without, in place; both branches of a head stay."""
    block: Any
    for block in model.modules():
        # not by Ultralytics' ``fuse``, which drops an end-to-end head's one-to-many branch (8.4.190)
        if isinstance(block, Conv) and isinstance(getattr(block, "bn", None), nn.BatchNorm2d):
            block.conv = fuse_conv_bn_eval(block.conv, block.bn)
            delattr(block, "bn")
            block.forward = block.forward_fuse
    return model


def _channels(module: Any) -> int:
    # a classifier's head is a linear layer
    return int(getattr(module, "out_channels", getattr(module, "out_features", 0))) if module is not None else 0


def distillation_loss(
    student: dict[str, Tensor], teacher: dict[str, Tensor], outputs: tuple[Output, ...]
) -> dict[str, Tensor]:
    """How far a student's raw outputs are from its teacher's.

    Args:
        student: Tensors (batch, channels, height, width), or (batch, classes) of a classifier, by path.
        teacher: The same of the teacher.
        outputs: What they are.

    Returns:
        ``distill_cls``: Kullback-Leibler divergence of the class probabilities per object that the teacher sees;
        ``distill_box``: of the box distributions (smooth L1 of offsets without DFL), weighted by the teacher's
        confidence; ``distill_other``: mask coefficients, coordinates and visibilities of keypoints, and angles, each
        relative to its own spread. Only the kinds that the head has.
    """
    sums: dict[str, list[Tensor]] = {}
    weights = _weights(teacher, outputs)
    for o in outputs:
        # under autocast they are half precision, whose logarithms are too coarse
        s = student[o.path].float()
        t = _arranged(teacher[o.path].float(), s)
        weight, total = weights.get((o.group, *t.shape[2:]), (None, None))
        if t.dim() == 2:
            sums.setdefault("distill_cls", []).append(_categorical(s, t).mean())
        elif o.branch == "score":
            assert total is not None
            sums.setdefault("distill_cls", []).append(_bernoulli(s, t) / total)
        elif o.branch == "box" and weight is not None and total is not None:
            sums.setdefault("distill_box", []).append((_box(s, t) * weight).sum() / total)
        else:
            sums.setdefault("distill_other", []).append(_other(s, t, weight, o.numbers))
    # both branches of an end-to-end head are taught: the mean keeps the weight of the loss the same for every family
    groups = max(len({o.group for o in outputs}), 1)
    return {name: torch.stack(parts).sum() / groups for name, parts in sums.items()}


def feature_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Mean squared difference of two models' feature maps, relative to the teacher's spread, over all that both have.

    Matching layer by layer, as FitNets do for one of them (Romero et al. 2015, arXiv 1412.6550), tells every layer of
    a coarsely quantized or pruned model what to compute; through the head alone few images say little.

    Raises:
        UsageError: The teacher is of another width.
    """
    pairs = {p: (s.float(), _arranged(teacher[p].float(), s)) for p, s in student.items() if p in teacher}
    for path, (s, t) in pairs.items():
        if s.shape != t.shape:
            ours, theirs = ("x".join(str(n) for n in x.shape[1:]) for x in (s, t))
            raise UsageError(
                f"feature_weight needs a teacher of the student's width; at {path} it makes {theirs}, the student "
                f"{ours}; {_OFF}"
            )
    # over the teacher's variance: layers differ by orders of magnitude, and the largest would be all that counts
    return torch.stack([((s - t) ** 2).mean() / t.var().clamp(min=1e-6) for s, t in pairs.values()]).mean()


def _weights(teacher: dict[str, Tensor], outputs: tuple[Output, ...]) -> dict[Any, tuple[Tensor, Tensor]]:
    """The teacher's best probability at each place, (batch, height, width), and its sum over all levels."""
    best = {
        (o.group, *teacher[o.path].shape[2:]): teacher[o.path].float().amax(1).sigmoid()
        for o in outputs
        if o.branch == "score"
    }
    totals: dict[str, Tensor] = {}
    for (group, *_), value in best.items():
        # over all levels together: a level without objects must not weigh as much as one with many
        totals[group] = totals.get(group, torch.zeros((), device=value.device)) + value.sum()
    return {key: (value, totals[key[0]].clamp(min=1.0)) for key, value in best.items()}


def _arranged(x: Tensor, like: Tensor) -> Tensor:
    """The same values in another tensor's memory layout: passes over two layouts at once crawl."""
    # of other shapes: the caller refuses them with a message
    same = x.shape != like.shape or x.stride() == like.stride()
    return x if same else torch.empty_like(like, dtype=x.dtype).copy_(x)


def _bernoulli(s: Tensor, t: Tensor) -> Tensor:
    """KL(p || q) of probabilities given as logits, summed; zero where they agree."""
    return _Bernoulli.apply(s, t)  # type: ignore[no-any-return]


class _Bernoulli(torch.autograd.Function):
    """Its gradient is ``sigmoid(s) - sigmoid(t)``, which needs none of the slow logarithms."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor) -> Tensor:
        """Sum of ``p log(p / q) + (1 - p) log((1 - p) / (1 - q))`` with both logits cut off below."""
        # the gradient stops where the logit is cut off, as that of a clamp
        kept = s >= LOGIT_FLOOR
        s, t = s.clamp(min=LOGIT_FLOOR), t.clamp(min=LOGIT_FLOOR)
        p = t.sigmoid()
        gap = (p * (t - s)).sub_(_log_rest(s)).add_(_log_rest(t))
        ctx.save_for_backward(s.sigmoid_().sub_(p).mul_(kept))
        return gap.sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The teacher gets none."""
        (slope,) = ctx.saved_tensors
        return slope * grads[0], None


def _log_rest(x: Tensor) -> Tensor:
    """``log(1 - sigmoid(x))``, to 6e-8 and for every x; softplus would take ten times as long on a CPU."""
    return x.abs().sigmoid_().log_().sub_(x.relu())


def _categorical(s: Tensor, t: Tensor) -> Tensor:
    """KL(p || q) of distributions over the last axis, given as logits; that axis goes."""
    return _Categorical.apply(s, t)  # type: ignore[no-any-return]


class _Categorical(torch.autograd.Function):
    """Its gradient is ``softmax(s) - softmax(t)``."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor) -> Tensor:
        """Sum of ``p log(p / q)``."""
        log_p, log_q = t.log_softmax(-1), s.log_softmax(-1)
        p = log_p.exp()
        gap = log_p.sub_(log_q).mul_(p).sum(-1)
        ctx.save_for_backward(log_q.exp_().sub_(p))
        return gap

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The teacher gets none."""
        (slope,) = ctx.saved_tensors
        return slope * grads[0].unsqueeze(-1), None


def _box(s: Tensor, t: Tensor) -> Tensor:
    """(batch, height, width): divergence summed over the four sides."""
    batch, channels, height, width = t.shape
    if channels > 4:
        sides = (batch, height, width, 4, channels // 4)  # no copy of channels-last tensors
        return _categorical(*(x.permute(0, 2, 3, 1).reshape(sides) for x in (s, t))).sum(-1)
    return F.smooth_l1_loss(s, t, reduction="none").sum(1)


def _other(s: Tensor, t: Tensor, weight: Tensor | None, numbers: int) -> Tensor:
    if not numbers:
        return _relative(s, t, weight)
    # visibilities are logits that reach farther than coordinates: with one spread for both, coordinates, by which
    # keypoints are judged, would count the less the surer the teacher is of visibilities
    seen = torch.arange(t.shape[1]) % numbers == numbers - 1
    coordinates, visibilities = (_relative(s[:, kind], t[:, kind], weight) for kind in (~seen, seen))
    # as much as each has numbers
    return (coordinates * (numbers - 1) + visibilities) / numbers


def _relative(s: Tensor, t: Tensor, weight: Tensor | None) -> Tensor:
    # mask coefficients, coordinates, visibilities and angles have units of their own, which the spread takes out
    error = ((s - t) ** 2).mean(1) / t.var().clamp(min=1e-6)
    return error.mean() if weight is None else (error * weight).sum() / weight.sum().clamp(min=1.0)
