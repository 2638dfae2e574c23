"""What a run must remember to go on where it stopped, as plain data: tensors, numbers and strings, no classes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from ..errors import ArtifactError


def random_state(loader: Any) -> dict[str, Any]:
    """State of every source of randomness, the order of the training images included."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 (Ultralytics draws from it)
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
    generator = getattr(loader, "generator", None)
    if isinstance(generator, torch.Generator):
        state["loader"] = generator.get_state()
    return state


def restore_random_state(state: dict[str, Any], loader: Any) -> None:
    """Inverse of random_state.

    Raises:
        ArtifactError: The data are damaged.
    """
    try:
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        kind, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        generator = getattr(loader, "generator", None)
        if isinstance(generator, torch.Generator) and "loader" in state:
            generator.set_state(state["loader"].cpu())
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as exc:
        raise ArtifactError(f"the checkpoint's random state is damaged: {exc!r}") from exc


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
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
