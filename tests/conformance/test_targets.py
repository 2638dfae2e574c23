"""Every target fulfils the contract. A new target adds one line here."""

from __future__ import annotations

from conformance.suite import TargetConformance

from yoloquant import targets


class TestOnnxRuntime(TargetConformance):
    name = "onnxruntime"
    agreement = 1.2  # int32 biases flip single steps, which grow in a net with random weights; with float biases 1e-4


class TestOpenVino(TargetConformance):
    name = "openvino"


class TestLiteRT(TargetConformance):
    name = "litert"


class TestEdgeTPU(TargetConformance):
    name = "edgetpu"


class TestTensorRT(TargetConformance):
    name = "tensorrt"
    agreement = 1e-3  # the same pairs computed in float


def test_every_target_inherits_the_suite() -> None:
    assert sorted(c.name for c in TargetConformance.__subclasses__()) == list(targets.names())
