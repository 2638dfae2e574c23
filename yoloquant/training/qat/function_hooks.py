"""Run a live Ultralytics model with a plan's points in it, the ones inside modules included.

While a layer runs, every function call in it is seen (``torch.overrides.TorchFunctionMode``) and named as the traced
graph names it, ``module.path:operation:index``; calls that the plan quantizes get their operands and results quantized.
The model's own modules stay as they are: nothing is swapped, copies and EMA work as ever, and taking the hooks away
gives the plain model back. BatchNorm is folded into the weight before that is quantized, as every export does, with its
statistics frozen, so that training sees exactly what will run on the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from .fake_quant import FakeQuantizeSiLU, IntegerGrid, fold_quantize
from .hook_plan import FusedSiLU, Wiring
from .lsq import LSQQuantizer

NAME = "quantizers"  # attribute of the model that holds them

# Operators, methods and functions of torch by the name that the traced graph has for them; whatever is not listed runs
# untouched and is not counted, so it cannot shift the numbers of others.
_SHORT = {
    **{n: n for n in ("conv2d", "linear", "conv_transpose2d", "matmul", "sub", "mul", "add", "div", "cat", "sigmoid")},
    **{n: n for n in ("softmax", "relu", "silu", "batch_norm", "stack", "sum", "mean", "avg_pool2d", "leaky_relu")},
    **{n: n for n in ("hardswish", "gelu", "mish", "einsum", "exp", "tanh", "clamp", "pow")},
    **{f"__{n}__": n for n in ("matmul", "add", "sub", "mul")},
    **{f"__i{n}__": n for n in ("add", "sub", "mul")},
    **{f"__r{n}__": n for n in ("add", "mul")},
    **{"__truediv__": "div", "true_divide": "div", "concat": "cat", "concatenate": "cat", "bmm": "matmul"},
    **{"add_": "add", "mul_": "mul", "sigmoid_": "sigmoid", "adaptive_avg_pool2d": "avg_pool2d", "multiply": "mul"},
    **{f"{n}_": n for n in ("silu", "relu", "leaky_relu", "hardswish")},
    "interpolate": "interpolate",
}


class Quantizers(nn.Module):
    """Every learned range of a model, and the interception that applies them; lives inside the model.

    Attributes:
        ranges: One module for each group of points.
        enabled: Whether a forward quantizes; the model is the float one otherwise.
        keeps_distance: Whether a forward notes how far weights are from their grid points.
        keeps_errors: Whether a forward notes what each range loses by itself.
    """

    def __init__(self, model: nn.Module, ranges: dict[str, LSQQuantizer], prefix: dict[str, str] | None = None) -> None:
        super().__init__()
        # points that share a range share the module: once among the parameters, or an optimizer would step it twice
        unique = list({id(r): r for r in ranges.values()}.values())
        self.ranges = nn.ModuleList(unique)
        position = {id(r): i for i, r in enumerate(unique)}
        # by position and not by object: copies of the model (its average) must find their own ranges
        self._index = {name: position[id(r)] for name, r in ranges.items()}
        self._root = (model,)  # in a tuple, so that it is no submodule
        self._prefix = prefix or {}
        self._folded: dict[str, str] = {}  # convolution -> path of its BatchNorm
        self._skipped: frozenset[str] = frozenset()
        self.wiring = Wiring()
        self.enabled = True
        self.keeps_distance = False
        self.keeps_errors = False
        self._distances: dict[str, Tensor] = {}
        self._errors: list[Tensor] = []
        self.recorder: Recorder | None = None
        self._path: list[tuple[str, str | None]] = []  # of every running module: live, and as the graph has it
        self._counts: Counter[tuple[str | None, str]] = Counter()
        self._mode: _Mode | None = None
        self._handles: list[RemovableHandle] = []
        self._hook(model)

    def by_name(self) -> dict[str, LSQQuantizer]:
        """Ranges by point name."""
        return {name: self.ranges[i] for name, i in self._index.items()}  # type: ignore[misc]

    def connect(self, wiring: Wiring, folded: dict[str, str]) -> None:
        """Set where points apply, and which BatchNorm belongs to which convolution."""
        self.wiring, self._folded = wiring, folded
        self._skipped = frozenset(folded.values())

    def distance(self) -> Tensor:
        """Mean squared distance of the weights of the last forward from their grid points, in steps, for damping.

        The pull of Nagel et al. 2022 (arXiv 2203.11086, equation 5), relative to the step.
        """
        distances, self._distances = self._distances, {}
        return torch.stack(list(distances.values())).mean()

    def local_error(self) -> Tensor:
        """What each range of the last forward loses by itself, in squares of its step, summed over them."""
        errors, self._errors = self._errors, []
        return torch.stack(errors).sum()

    def remove(self) -> None:
        """Take every hook away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # -- where in the model we are

    def _hook(self, model: nn.Module) -> None:
        layers: Any = model.model
        seen: set[int] = set()  # an activation may be one module that every convolution shares
        for index, layer in enumerate(layers):
            path = f"model.{index}"
            self._keep(layer.register_forward_pre_hook(partial(self._enter_layer, path, index == 0)))
            # always_call: after an error within a layer the mode must not stay active for whatever runs next
            self._keep(layer.register_forward_hook(self._leave_layer, always_call=True))
            for name, module in layer.named_modules():
                if name and id(module) not in seen:
                    seen.add(id(module))
                    child = name.rsplit(".", 1)[-1]
                    self._keep(module.register_forward_pre_hook(partial(self._enter, f"{path}.{name}", child)))
                    self._keep(module.register_forward_hook(self._leave, always_call=True))

    def _keep(self, handle: RemovableHandle) -> None:
        self._handles.append(handle)

    def _enter_layer(self, path: str, first: bool, module: nn.Module, args: Any) -> Any:
        if not (self.enabled or self.recorder):
            return None
        # numbers start anew in every layer: a name holds the layer's path
        self._path, self._counts = [(path, self._rename(path))], Counter()
        # one layer at a time: between layers Ultralytics' own forward runs, whose calls have no names
        self._mode = _Mode(self)
        # entered and left by two hooks, since no ``with`` statement stands around the layer
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        if first:
            self._errors = []
        if first and self.enabled:
            images = _arranged(args[0])
            return (self._quantize("images", images) if "images" in self.wiring.results else images, *args[1:])
        return None

    def _leave_layer(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._mode is not None:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._mode = None
            self._path = []

    def _enter(self, path: str, child: str, module: nn.Module, args: Any) -> None:
        if self._mode is not None:  # a module that several parents share is found under the one that calls it
            live, _ = self._path[-1]
            path = path if path.startswith(f"{live}.") else f"{live}.{child}"
            self._path.append((path, self._rename(path)))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._mode is not None:
            self._path.pop()

    def _rename(self, path: str) -> str | None:
        """The path as the traced graph has it; None where that lacks the branch."""
        for live, traced in self._prefix.items():
            if path == live or path.startswith(f"{live}."):
                # None: the branch runs untouched, and only in training
                return traced + path[len(live) :] if traced else None
        return path

    # -- what happens at a call

    def call(self, func: Callable[..., Any], short: str, args: Any, kwargs: Any) -> Any:
        """Run one function call of a layer, quantized as the plan says."""
        live, path = self._path[-1]
        if path is None:
            return func(*args, **kwargs)
        if short == "interpolate":
            short = f"upsample_{kwargs.get('mode', args[3] if len(args) > 3 else 'nearest')}2d"
        # before a name is taken: it takes two
        if short == "silu":
            return self._silu(func, path, args, kwargs)
        # folded into the weight already
        if short == "batch_norm" and self.recorder is None and self.enabled and live in self._skipped:
            return args[0]
        name = self._name(path, short)
        if self.recorder is not None:
            return self.recorder.called(name, live, args, func(*args, **kwargs))
        args = self._operands(name, args)
        if name in self.wiring.weights:
            args, kwargs = self._weight(name, args, kwargs)
        result = func(*args, **kwargs)
        return self._quantize(name, result) if name in self.wiring.results else result

    def _name(self, path: str, short: str) -> str:
        index = self._counts[path, short]
        self._counts[path, short] += 1
        return f"{path}:{short}:{index}"

    def _quantize(self, name: str, x: Tensor) -> Tensor:
        found = self._range(self.wiring.results[name])
        # before the range is applied: its error is that of the float values
        self._note_error(found, x)
        return found(x)  # type: ignore[no-any-return]

    def _note_error(self, found: LSQQuantizer, x: Tensor) -> None:
        if self.keeps_errors and torch.is_grad_enabled() and found.trainable:
            self._errors.append(found.local_error(thinned(x.detach())))

    def _range(self, point: str) -> LSQQuantizer:
        return self.ranges[self._index[point]]  # type: ignore[return-value]

    def _operands(self, name: str, args: Any) -> Any:
        if not self.wiring.operands:
            return args
        # a concat takes its tensors as one list
        flat = args[0] if args and isinstance(args[0], (list, tuple)) else args
        changed = list(flat)
        tensors = [i for i, a in enumerate(flat) if isinstance(a, Tensor)]
        for position, place in enumerate(tensors):
            point = self.wiring.operands.get((name, position))
            if point is not None:
                self._note_error(self._range(point), changed[place])
                changed[place] = self._range(point)(changed[place])
        return (changed, *args[1:]) if flat is not args else tuple(changed)

    def _weight(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Fold the BatchNorm into the weight and quantize it."""
        x, weight = args[0], args[1]
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        norm = self._root[0].get_submodule(self._folded[name]) if name in self._folded else None
        quantizer = self._range(self.wiring.weights[name])
        # the floor follows the weights, which move with every step
        if quantizer.spec.safe_pairs:
            with torch.no_grad():
                quantizer.keep_safe(weight if norm is None else fold(weight, bias, norm)[0])
        if self.keeps_errors and torch.is_grad_enabled() and quantizer.trainable:
            with torch.no_grad():
                # no gradient for the weight: what is repaired is the range
                whole = weight if norm is None else fold(weight, bias, norm)[0]
            self._errors.append(quantizer.local_error(whole.detach().float()))
        at_once = None
        # not with damping, which needs the folded weight before it is quantized
        if norm is not None and not self.keeps_distance and quantizer.spec.axis == 0:
            scale = quantizer.scale(weight[0].numel())
            at_once = fold_quantize(weight, bias, norm, scale, quantizer.grid)
        if at_once is not None:
            weight, bias = at_once
        else:
            if norm is not None:
                weight, bias = fold(weight, bias, norm)
            weight, folded = quantizer(weight), weight
            if self.keeps_distance:
                self._distances[name] = quantizer.distance(folded, weight)
        # a float32 weight in a half-precision validation: a folded and quantized weight is not cast with the model
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(weight.dtype)
        # by position, so that a bias that folding made is given once, also where the call named it
        return (x, weight, bias, *args[3:]), {k: v for k, v in kwargs.items() if k != "bias"}

    def _silu(self, func: Callable[..., Any], path: str, args: Any, kwargs: Any) -> Any:
        # one call here, two operations in the traced graph: both are counted, or all later names would be off by one
        sigmoid, product = self._name(path, "sigmoid"), self._name(path, "mul")
        if self.recorder is not None:
            return self.recorder.gated(sigmoid, product, args, func(args[0]))
        gate = self.wiring.gates.get(sigmoid)
        return func(*args, **kwargs) if gate is None else self._gated(gate, args[0])

    def _note_gate_errors(self, gate: FusedSiLU, x: Tensor) -> None:
        """What counts is the result of the SiLU, the sigmoid's own rounding included, as for calibration."""

        def after(y: Tensor) -> Tensor:
            unit = y.sigmoid()
            return y * (unit if gate.unit is None else self._range(gate.unit)(unit))

        # in float: what the next layer should have been given
        result = F.silu(x)
        if gate.pre is not None and self._range(gate.pre).trainable:
            self._errors.append(self._range(gate.pre).local_error(x, after, result))
        if gate.product is not None and self._range(gate.product).trainable:
            self._errors.append(self._range(gate.product).local_error(result))

    def _gated(self, gate: FusedSiLU, x: Tensor) -> Tensor:
        grids: list[IntegerGrid | None] = []
        parameters: list[Tensor | None] = []
        elements = x.numel() // max(x.shape[0], 1)
        if self.keeps_errors and torch.is_grad_enabled():
            self._note_gate_errors(gate, thinned(x.detach()))
        for point in (gate.pre, gate.unit, gate.product):
            found = None if point is None else self._range(point)
            grids.append(None if found is None else found.grid)
            parameters += [None, None] if found is None else [found.scale(elements), found.zero_point(elements)]
        return FakeQuantizeSiLU.apply(x, tuple(grids), *parameters)  # type: ignore[no-any-return, no-untyped-call]


_ENOUGH = 1 << 16  # values that show what a range loses; the rarest ones decide where to clip


def thinned(x: Tensor) -> Tensor:
    """Evenly spread places of a feature map, all its channels: some 65 thousand values."""
    if x.dim() != 4:
        return x.float()
    step = max(int((x.numel() / _ENOUGH) ** 0.5), 1)
    # at least one place of a small map
    step = min(step, *x.shape[2:])
    # from the middle of a cell, as far from the padded border as from the next place
    return x[:, :, step // 2 :: step, step // 2 :: step].float().contiguous()


def _arranged(images: Tensor) -> Tensor:
    """Images in the memory layout that everything behind them takes over.

    On a CPU steps are faster on channels-last images. Scores are taken in the plain layout, which the simulation has:
    convolutions add up in another order there, and a last bit may move a value to the next step of its grid.
    """
    if images.device.type != "cpu" or images.dim() != 4 or not torch.is_grad_enabled():
        return images
    return images.contiguous(memory_format=torch.channels_last)


def fold(weight: Tensor, bias: Tensor | None, bn: Any) -> tuple[Tensor, Tensor]:
    """Fold a BatchNorm with frozen statistics into a convolution, in ``torch.nn.utils.fusion``'s order of operations.

    Args:
        weight: (out, in, h, w).
        bias: (out,) or None.
        bn: The BatchNorm2d.

    Returns:
        Folded weight and bias, differentiable.
    """
    inverse = torch.rsqrt(bn.running_var + bn.eps)
    folded = weight * (bn.weight * inverse).reshape(-1, 1, 1, 1)
    start = torch.zeros_like(bn.running_mean) if bias is None else bias
    return folded, (start - bn.running_mean) * inverse * bn.weight + bn.bias


class _Mode(TorchFunctionMode):
    def __init__(self, owner: Quantizers) -> None:
        super().__init__()
        self.owner = owner

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        short = _SHORT.get(getattr(func, "__name__", ""))
        # views, shapes and bookkeeping: most calls of a layer
        if short is None:
            return func(*args, **(kwargs or {}))
        return self.owner.call(func, short, args, kwargs or {})


class Recorder:
    """Notes what a float forward calls: the values by name, the SiLUs, and which BatchNorm follows which convolution.

    Attributes:
        values: Result of every named call.
        silus: Sigmoids that are part of one SiLU call.
        folded: Path of the BatchNorm behind each convolution.
    """

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self.silus: list[str] = []
        self.folded: dict[str, str] = {}
        self._last: tuple[str, Tensor] | None = None

    def called(self, name: str, path: str, args: Any, result: Any) -> Any:
        """Note one call, by the graph's name and the live module's path."""
        short = name.split(":")[1]
        # by identity: the norm that reads the very result of the convolution, wherever it is stored
        if short == "batch_norm" and self._last is not None and args[0] is self._last[1]:
            convolution = self._last[0]
            self.folded[convolution] = path
            # under the convolution's name: the traced graph has both as one folded convolution
            self.values[convolution] = result
        elif isinstance(result, Tensor):
            self.values[name] = result
        # the directly following call only: a norm after anything else cannot be folded
        self._last = (name, result) if short in {"conv2d", "conv_transpose2d"} else None
        return result

    def gated(self, sigmoid: str, product: str, args: Any, result: Tensor) -> Tensor:
        """Note one SiLU."""
        self.silus.append(sigmoid)
        self.values[sigmoid], self.values[product] = torch.sigmoid(args[0]), result
        return result


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Run a model as the float one while the block runs."""
    quantizers: Quantizers = getattr(model, NAME)
    before, quantizers.enabled = quantizers.enabled, False
    try:
        yield
    finally:
        quantizers.enabled = before
