"""A stand-in for what ``train(quantize=8)`` of Ultralytics 8.4.190 with nvidia-modelopt 0.47 leaves in a checkpoint.

Same keys, same kinds of values, ranges from the same algorithm (the largest magnitude over some batches), so that no
test needs ModelOpt; where it is installed, ``tests/train/test_native.py`` holds the stand-in against the real thing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["IMAGES", "largest_inputs", "native_checkpoint", "native_state"]

IMAGES = 4
_QUANTIZED = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("_effective_bits", "backend", "_block_sizes", "_constant_amax", "_bias", "_input_dtype")),
    **dict.fromkeys(("_use_constant_amax", "_dynamic", "_narrow_range", "_if_calib", "_rotate"), False),
    **dict.fromkeys(("_fake_quant", "_pass_through_bwd", "_if_quant", "_enable_pre_quant_scale"), True),
    **{"_dequantize": False, "_unsigned": False, "_learn_amax": False, "_num_bits": 8, "_axis": None},
    **{"backend_extra_args": {}, "_trt_high_precision_dtype": "Float"},
}


def native_checkpoint(path: Path, module: Any, images: Iterable[Any], **changes: Any) -> Path:
    """Write a checkpoint as Ultralytics' trainer does after native QAT.

    Args:
        path: Where to.
        module: The unfused model, in eval mode; left as it is.
        images: What its ranges are calibrated on, float32 (1, 3, height, width).
        **changes: Keys of the checkpoint to replace.
    """
    from core_models import checkpoint

    state = native_state(module, images)
    return checkpoint(path, copy.deepcopy(module), **{"modelopt": state, "train_args": {"imgsz": 64}, **changes})


def native_state(module: Any, images: Iterable[Any]) -> dict[str, Any]:
    """What such a checkpoint holds under ``modelopt``."""
    head = f"model.{len(module.model) - 1}."
    inputs = largest_inputs(module, images)
    ranges: dict[str, torch.Tensor] = {}
    settings: dict[str, dict[str, Any]] = {}

    def add(name: str, amax: torch.Tensor | None, enabled: bool, axis: int | None = None) -> None:
        disabled = not enabled or (name.startswith(head) and (".conv." not in name or ".dfl." in name))
        buffers = {}
        if amax is not None and enabled:
            ranges[f"{name}._amax"] = amax
            buffers["_amax"] = {"shape": amax.shape, "dtype": amax.dtype}
        metadata = {"params": {}, "buffers": buffers}
        settings[name] = {**_SETTINGS, "_disabled": disabled, "_axis": axis, "_pytorch_state_metadata": metadata}

    for path, layer in module.named_modules():
        if isinstance(layer, (*_QUANTIZED, *_POOLS, nn.BatchNorm2d)):
            add(f"{path}.input_quantizer", inputs.get(path), not isinstance(layer, nn.BatchNorm2d))
            add(f"{path}.output_quantizer", None, False)
        if isinstance(layer, _QUANTIZED):
            weight = layer.weight.detach()
            amax = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True)
            add(f"{path}.weight_quantizer", amax if len(amax) > 1 else amax.reshape(()), True, 0)
    before = {name: {**s, "_pytorch_state_metadata": {"params": {}, "buffers": {}}} for name, s in settings.items()}
    modes = [
        ("quantize", {"config": {"algorithm": "max"}, "metadata": {"quantizer_state": before}}),
        ("max_calibrate", {"config": {"method": "max"}, "metadata": {"quantizer_state": settings}}),
    ]
    return {"modelopt": {"modelopt_state_dict": modes, "modelopt_version": "0.47.0"}, "ranges": ranges}


def largest_inputs(module: Any, images: Iterable[Any]) -> dict[str, torch.Tensor]:
    """Largest magnitude that every layer reads, float32 (), by module path."""
    found: dict[str, torch.Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, path=path: _keep_largest(found, path, args[0]))
        for path, layer in module.named_modules()
        if isinstance(layer, (*_QUANTIZED, *_POOLS))
    ]
    try:
        with torch.no_grad():
            for image in images:
                module(torch.as_tensor(image))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _keep_largest(found: dict[str, torch.Tensor], path: str, value: torch.Tensor) -> None:
    amax = value.detach().abs().amax().float()
    found[path] = torch.maximum(found[path], amax) if path in found else amax
