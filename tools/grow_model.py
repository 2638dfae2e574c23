"""Start a larger model from a smaller one's weights: the same network twice as wide, computing the same at first.

    python tools/grow_model.py model=yolo11n.pt to=yolo11s.yaml out=yolo11s-grown.pt

Every channel of the small model becomes one of the large model's and reads only such channels; the channels between
them are as Ultralytics initialises them, and nobody reads them yet. So the result detects what the small model detects,
no better, until it is trained: it stands in for pretrained weights of the larger size where they cannot be had, and
**is not the official larger model**, which was trained at that width from the start.

Options (``key=value`` or ``--key value``): model (a checkpoint), to (Ultralytics' description of the larger model: of
the same depth, every width the same, doubled, or longer at its end), out (the checkpoint to write).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"

import torch
from torch import Tensor, nn

from tools.options import parse_options

DEFAULTS = {"model": "yolo11n.pt", "to": "yolo11s.yaml", "out": "yolo11s-grown.pt"}


def grow(small: nn.Module, large: nn.Module) -> None:
    """Write a model's weights into a wider one of the same structure, in place, so that it computes the same.

    Args:
        small: An Ultralytics model, not fused.
        large: Freshly initialised; every layer at least as wide.

    Raises:
        SystemExit: The two differ by more than widths.
    """
    source, target = small.state_dict(), large.state_dict()
    if source.keys() != target.keys():
        odd = min(source.keys() ^ target.keys())
        raise SystemExit(f"only one of the models has {odd}; to= needs the same structure at another width")
    for name, value in source.items():
        wide = target[name]
        if any(new < old for old, new in zip(value.shape, wide.shape, strict=True)):
            raise SystemExit(
                f"{name} is {tuple(value.shape)} and would be {tuple(wide.shape)}; to= needs a wider model"
            )
        if not value.dim():  # counters of batches
            wide.copy_(value)
            continue
        # heads of attention are whole blocks of channels: the old ones come first
        blocks = ".attn." in name
        rows = _places(value.shape[0], wide.shape[0], blocks=blocks and ".attn.proj." not in name)
        if value.dim() == 1:
            wide[rows] = value
            continue
        columns = _places(value.shape[1], wide.shape[1], blocks=blocks and ".attn.qkv." not in name)
        wide[rows] = 0.0  # old channels do not read new ones
        wide[rows[:, None], columns[None]] = value


def _places(old: int, new: int, *, blocks: bool) -> Tensor:
    """Where the channels of a tensor go: to every second place where there are twice as many.

    So the halves of a split tensor and the parts of a concatenated one need no thought: each is doubled like the whole.
    """
    return torch.arange(old) * (2 if new == 2 * old and not blocks else 1)


def main(arguments: Sequence[str]) -> int:
    """Grow a checkpoint."""
    from ultralytics import YOLO

    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    small, large = YOLO(options["model"]), YOLO(options["to"])
    with torch.no_grad():
        grow(small.model.float(), large.model)
    large.model.names = small.model.names
    large.save(options["out"])
    print(f"wrote {options['out']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
