"""One tiny model with a plan for every scheme, shared by all targets' conformance tests."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

os.environ["YOLO_AUTOINSTALL"] = "false"

import core_models
from conformance_models import sample_images

from yoloquant.quantization.artifact import Artifact


@pytest.fixture(scope="session")
def tiny_artifact() -> Artifact:
    """A two-level detector at 64 pixels, with a calibrated plan for every known scheme and the portable one."""
    return core_models.tiny_artifact()


@pytest.fixture(scope="session")
def portable_artifact(tiny_artifact: Artifact) -> Artifact:
    """The same model with the portable plan alone."""
    artifact = replace(tiny_artifact, plans={"portable": tiny_artifact.plans["portable"]})
    return artifact


@pytest.fixture(scope="session")
def images() -> list[np.ndarray]:
    """Four images that were not calibrated on."""
    return sample_images(4, seed=1)
