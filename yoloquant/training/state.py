"""What a run must remember to go on where it stopped, as plain data: tensors, numbers and strings, no classes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ArtifactError

if TYPE_CHECKING:
    from .task_trainer import TaskTrainer


def random_state(loader: Any) -> dict[str, Any]:
    """State of every source of randomness, the order of the training images included."""
    # tuples become lists and arrays tensors, so that the file loads with weights_only
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],  # type: ignore[arg-type]
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
    }
    # of the workers' seeds; Ultralytics gives its loader one of its own
    generator = getattr(loader, "generator", None)
    if isinstance(generator, torch.Generator):
        state["loader"] = generator.get_state()
    recent = getattr(getattr(loader, "dataset", None), "buffer", None)
    if isinstance(recent, list):
        state["recent"] = [int(i) for i in recent]  # images that mosaics draw from
    return state


def restore_random_state(state: dict[str, Any], loader: Any) -> None:
    """Inverse of random_state.

    Raises:
        ArtifactError: The data are damaged.
    """
    try:
        if state.get("recent") and not loader.dataset.buffer:
            for index in state["recent"]:
                # mosaics draw from a buffer of recent images, which must be in memory again
                loader.dataset.load_image(index)
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        kind, keys, position, has_gauss, cached = state["numpy"]
        # stored as int64: torch had no uint32 tensors before 2.3
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
        # a ByteTensor on the CPU is all that torch accepts, wherever the checkpoint was mapped to
        torch.set_rng_state(state["torch"].cpu())
        # a run may go on with another number of GPUs; then their states mean nothing
        if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        generator = getattr(loader, "generator", None)
        if isinstance(generator, torch.Generator) and "loader" in state:
            generator.set_state(state["loader"].cpu())
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as exc:
        raise ArtifactError(f"the checkpoint's random state is damaged: {exc!r}") from exc


@dataclass
class Accumulation:
    """Gradients of several batches that make up one step, which may straddle the end of an epoch.

    Attributes:
        batches: Batches since the last step.
        gradients: Of a resumed run, until its first epoch begins.
        nominal: Batches per step; None but for the first step of a resumed run.
    """

    batches: int = 0
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    nominal: int | None = None

    def stepped(self, trainer: TaskTrainer) -> None:
        """Note an optimizer step."""
        self.batches = 0
        if self.nominal is not None:
            trainer.accumulate, self.nominal = self.nominal, None

    def to_plain(self, model: torch.nn.Module) -> dict[str, Any]:
        """What a resumed run needs; no gradients where a step has just been taken."""
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None} if self.batches else {}
        return {"batches": self.batches, "gradients": plain(found)}

    def restore(self, trainer: TaskTrainer, data: dict[str, Any]) -> None:
        """Let a resumed run's first step come when it would have come: the trainer counts batches from the start."""
        self.batches, self.gradients = int(data["batches"]), dict(data["gradients"])
        # with one batch per step there is nothing that could wait
        if trainer.accumulate > 1:
            self.nominal = trainer.accumulate
            # Ultralytics steps when the count of all batches since the start reaches the last step plus this; a resumed
            # run's last step is not known to it
            trainer.accumulate += len(trainer.train_loader) * trainer.start_epoch - self.batches

    def fill(self, model: torch.nn.Module) -> None:
        """Put stored gradients into the model, once."""
        parameters = dict(model.named_parameters()) if self.gradients else {}
        for name, gradient in self.gradients.items():
            parameters[name].grad = gradient.to(parameters[name].device)
        self.gradients = {}


def plain(value: Any) -> Any:
    """A copy in which everything is a tensor, number, string, list or dict."""
    if isinstance(value, dict):
        return {(k if isinstance(k, (str, int)) else str(k)): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, torch.Tensor):
        return value.detach().clone().cpu()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    # numpy's scalars would make the file need numpy's classes, which weights_only refuses
    if isinstance(value, np.generic):
        return value.item()
    # paths, enums: people read them, nothing here reads them back
    return str(value)
