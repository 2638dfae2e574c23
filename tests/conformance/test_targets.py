"""Every target fulfils the contract. A new target adds one line here."""

from __future__ import annotations

import pytest
from conformance_suite import TargetConformance

from yoloquant import targets
from yoloquant.types import ExportedModel


class TestOnnxRuntime(TargetConformance):
    name = "onnxruntime"
    agreement = 1.2  # int32 biases flip single steps, which grow in a net with random weights; with float biases 1e-4


class TestOpenVino(TargetConformance):
    name = "openvino"


class TestLiteRT(TargetConformance):
    """Its integer kernels differ from the simulation by whole steps, and every step feeds the next operation.

    Given the same operands, every single operation is within one step of the simulation (which
    tests/targets/litert/test_rounding.py holds it to), and at most 3 % of its results differed at all. Through a
    random network those flips decorrelate: two independent roundings of one network are sqrt(2) errors apart. Measured
    on this model: boxes 0.69, scores 1.13 errors; on the trained demo model: boxes 0.70, scores 0.47, at equal mAP
    (0.6532 and 0.6534, 48 images).
    """

    name = "litert"
    agreement = 2**0.5


class TestEdgeTPU(TargetConformance):
    """Runs the same kernels on the same body as LiteRT, see there."""

    name = "edgetpu"
    agreement = 2**0.5


class TestTensorRT(TargetConformance):
    name = "tensorrt"
    agreement = 1e-3  # the same pairs computed in float


class TestEthosU(TargetConformance):
    """Runs the same kernels on the same body as LiteRT, see there; the NPU's own are not here."""

    name = "ethosu"
    agreement = 2**0.5

    def test_writes_one_artifact(self, exported: ExportedModel) -> None:
        """The form that Vela compiled lies beside it."""
        assert sorted(p.name for p in exported.path.parent.iterdir()) == [
            "tiny-ethosu-u85-512.tflite",
            "tiny-ethosu-u85-512_vela.tflite",
        ]


@pytest.mark.nightly  # its exporter takes half a minute each time; tests/targets/executorch has a smaller network
class TestExecuTorch(TargetConformance):
    """XNNPACK's integer kernels, see LiteRT; its SiLU is computed in float."""

    name = "executorch"
    agreement = 2**0.5


@pytest.mark.nightly  # needs Qualcomm's package, and compiles every export; tests/targets/qnn has the cheap ones
class TestQnn(TargetConformance):
    """Qualcomm's simulator of the NPU, whose arithmetic is its own; a random network amplifies every step.

    Measured on this model: boxes 1.19, scores 2.09 errors; on yolo11n it keeps a fidelity like LiteRT's kernels.
    """

    name = "qnn"
    agreement = 2.5


def test_every_target_inherits_the_suite() -> None:
    assert sorted(c.name for c in TargetConformance.__subclasses__()) == list(targets.names())
