"""Which plan a run trains."""

from __future__ import annotations

import pytest

from yoloquant.pipeline import _with_scheme
from yoloquant.targets import resolve
from yoloquant.training.qat.qat_options import QATOptions


@pytest.mark.parametrize(
    ("targets", "given", "trained"),
    [
        ("litert", "auto", "litert"),
        ("litert,edgetpu", "auto", "litert"),
        ("litert,tensorrt", "auto", "auto"),  # which training takes as portable
        ("litert", "portable", "portable"),
        ("litert", "openvino", "openvino"),
    ],
)
def test_targets_of_one_scheme_get_their_own_plan(targets: str, given: str, trained: str) -> None:
    options = QATOptions(scheme=given, images=9)
    found = _with_scheme(options, resolve(targets.split(",")))
    assert found.scheme == trained and found.images == 9
