from __future__ import annotations

import numpy as np
import torch
from core_models import tiny_artifact, tiny_graph
from torch import fx

from yoloquant.graph.trace import WEIGHTED
from yoloquant.quantization.bias_correction import correct_bias
from yoloquant.quantization.simulate import simulate


def channel_means(module: fx.GraphModule, names: set[str], images: list[np.ndarray]) -> dict[str, np.ndarray]:
    means: dict[str, list[np.ndarray]] = {name: [] for name in names}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if n.name in names:
                means[n.name].append(result.mean((0, 2, 3)).numpy())
            return result

    with torch.inference_mode():
        for image in images:
            Watch(module).run(torch.from_numpy(image))
    return {name: np.mean(values, 0) for name, values in means.items()}


def test_every_channel_keeps_its_float_mean() -> None:
    graph, plan = tiny_graph(), tiny_artifact().plans["portable"]
    rng = np.random.default_rng(5)
    images = [rng.random((1, 3, *graph.info.imgsz), dtype=np.float32) for _ in range(4)]
    names = {graph.fx_name(op.name) for op in graph.body() if op.kind in WEIGHTED}
    wanted = channel_means(graph.module, names, images)
    before = channel_means(simulate(graph, plan), names, images)
    corrections = correct_bias(graph, plan, images)
    after = channel_means(simulate(graph, plan, bias=corrections), names, images)
    assert {graph.ops[n].weight for n in graph.ops if graph.ops[n].weight and not graph.ops[n].tail} >= {
        f"{path}.weight" for path in corrections
    }
    assert max(np.abs(before[n] - wanted[n]).max() for n in names) > 1e-3
    for name in names:
        np.testing.assert_allclose(after[name], wanted[name], atol=1e-4)
