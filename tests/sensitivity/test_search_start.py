"""A plan that was found keeps the biases that it was measured with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from core_models import tiny_artifact

from yoloquant.quantization.float_layers import leave_float
from yoloquant.sensitivity.search_start import with_plan
from yoloquant.targets import get


def test_biases_of_a_portable_plan_come_along() -> None:
    scheme, whole = get("onnxruntime").scheme, tiny_artifact()
    module = whole.plans["portable"].weights[0].name.split(":")[0]
    bias = {"portable": {module: np.ones(1, np.float32)}}
    portable = replace(whole, plans={"portable": whole.plans["portable"]}, bias=bias)
    found = with_plan(portable, scheme, leave_float(portable.graph, portable.plan_for(scheme), ("model.3",)))
    assert found.plan_for(scheme).float_layers == ("model.3",)
    assert found.bias_for(scheme) == portable.bias_for(scheme) == bias["portable"]
