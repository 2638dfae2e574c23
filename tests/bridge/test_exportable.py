"""A model whose layers do not fit together is refused by name."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_yolo

from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.exportable import exportable
from yoloquant.bridge.host_model import model_info
from yoloquant.errors import ModelError


def test_layers_of_other_sizes_are_a_damaged_checkpoint() -> None:
    yolo = tiny_yolo()
    norm = yolo.model.model[0].bn
    norm.weight = torch.nn.Parameter(norm.weight[:-1].clone())
    host = load_model(yolo)
    info = model_info(host, (64, 64))
    kept = host.module.model[0].bn.weight.shape
    with pytest.raises(ModelError, match="do not fit together"):
        exportable(host, info)
    assert host.module.model[0].bn.weight.shape == kept
