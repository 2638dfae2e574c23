"""Gradients of the loss on training images, for criteria that ask what a channel does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..task_trainer import TaskTrainer


def channel_products(trainer: TaskTrainer, module: Any, images: int) -> dict[str, Tensor]:
    """First-order change of the loss when a channel is closed, averaged over batches.

    A channel's gate is its BatchNorm, or the bare layer that makes it: ``|sum(weight * gradient)|`` over the gate's
    parameters (arXiv 1906.10771, eq. 8 and section 3.2).

    Args:
        trainer: A trainer whose data are known; its loss and its images are used.
        module: The live model; its weights stay as they are.
        images: How many training images.

    Returns:
        By name of the gate's weight, a tensor with the weight's number of axes, of size 1 but along the channels.
    """
    # Ultralytics' batch may be -1 (to be estimated) at this time
    batch = max(min(int(trainer.batch_size), images), 1)
    # mode val: images as they are, without augmentation and in a fixed order
    loader = trainer.get_dataloader(trainer.data["train"], batch_size=batch, rank=-1, mode="val")
    before = next(module.parameters()).device
    module = module.to(trainer.device)
    # a loss of its own: the trainer's does not exist before its model is set up
    criterion = module.init_criterion()
    gates = dict(_gates(module))
    parameters = [p for gate in gates.values() for p in (gate.weight, gate.bias) if p is not None]
    sums = {name: torch.zeros(()) for name in gates}
    states = [(m, m.training) for m in module.modules()]
    seen = batches = 0
    try:
        _train_without_norms(module)
        # a loaded checkpoint has no gradients; no other parameter needs any
        for p in parameters:
            p.requires_grad_(True)
        for content in loader:
            prepared = trainer.preprocess_batch(content)
            loss, _ = criterion(module(prepared["img"]), prepared)
            # grad() and not backward(): nothing is left in the weights, which training starts from. Branches that the
            # loss does not reach give None
            gradients = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
            grads = {id(p): g for p, g in zip(parameters, gradients, strict=True)}
            for name, gate in gates.items():
                # absolute per batch and not of the sum: changes of opposite sign would cancel and an important channel
                # look idle
                sums[name] = sums[name] + _product(gate, grads).abs().cpu()
            seen, batches = seen + len(prepared["img"]), batches + 1
            if seen >= images:
                break
    finally:
        for m, state in states:
            # one by one: ``train(mode)`` would also wake the parts that were in evaluation mode before
            m.training = state
        module.to(before)
    return {name: total / max(batches, 1) for name, total in sums.items()}


def _gates(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, m in module.named_modules():
        # with a BatchNorm behind it a convolution has no bias, and the norm is the gate
        bare = isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and m.bias is not None
        if isinstance(m, nn.BatchNorm2d) or bare:
            yield f"{name}.weight", m


# training mode, since heads return what a loss takes only there; the norms' statistics are no business of this pass
def _train_without_norms(module: nn.Module) -> None:
    module.train()
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()


def _product(gate: Any, grads: Mapping[int, Tensor | None]) -> Tensor:
    # (in, out, h, w), where all others are (out, in, h, w)
    axis = 1 if isinstance(gate, nn.ConvTranspose2d) else 0
    shape = [1] * gate.weight.dim()
    shape[axis] = gate.weight.shape[axis]
    total = torch.zeros(shape, device=gate.weight.device)
    for parameter in (gate.weight, gate.bias):
        grad = None if parameter is None else grads[id(parameter)]
        if grad is not None:
            product = (parameter.detach() * grad).transpose(0, axis if parameter.dim() > 1 else 0)
            total = (
                total + product.flatten(1).sum(1).reshape(shape)
                if product.dim() > 1
                else total + product.reshape(shape)
            )
    return total
