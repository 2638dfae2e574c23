"""The form of a model that is traced: fused, in export mode, nothing in place."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..types import ModelInfo
from .host_model import HostModel
from .installed import offline

if TYPE_CHECKING:
    from torch import nn


def exportable(host: HostModel, info: ModelInfo) -> nn.Module:
    """A fused copy of the model in export mode: BatchNorm folded, nothing in place, decoded output.

    Args:
        host: The float model; left untouched.
        info: Its description at the input size that will be traced.

    Returns:
        The module to trace; it maps (1, channels, height, width) to the drop-in output.

    Raises:
        ModelError: Layers of the model do not fit together.
    """
    # on the CPU: graphs are traced and simulated there, whatever trains
    module: Any = copy.deepcopy(host.module).cpu().float().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with offline():
        quiet = {"verbose": False} if "verbose" in inspect.signature(module.fuse).parameters else {}
        try:
            fused: nn.Module = module.fuse(**quiet)
        except Exception as exc:  # whatever the code of a layer raises
            raise ModelError(
                f"the layers of '{host.source}' do not fit together ({exc}); the checkpoint is damaged or "
                "was edited: copy it again, or save it anew from training"
            ) from exc
    m: Any
    for m in fused.modules():
        if hasattr(m, "inplace"):
            # an activation in place changes the very tensor that a point observes
            m.inplace = False
        if hasattr(m, "export"):
            m.export = True
            # heads branch on it: for "engine" they group the top-k, for "coreml" attention is another operator
            # (8.4.190)
            m.format = "onnx"
            m.dynamic = False
        # its top-k must not ask for more results than a small input has anchors
        if hasattr(m, "max_det") and info.max_det:
            m.max_det = info.max_det
    return fused
