"""The demonstration model as artifacts that bundles are made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from once import once

from yoloquant import QuantizeOptions

os.environ["YOLO_AUTOINSTALL"] = "false"

from yoloquant import api
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.data.demo import IMGSZ, generator
from yoloquant.io import resource
from yoloquant.quantization.artifact import Artifact
from yoloquant.types import ExportedModel

IMAGES = 16


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data yaml of a small demo set."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    return Path(generator().write_demo_set(folder, train=8, val=IMAGES, imgsz=IMGSZ))


@pytest.fixture(scope="session")
def demo_artifact(demo_data: Path) -> Artifact:
    """The demonstration model with a plan for every runtime."""
    options = QuantizeOptions(imgsz=IMGSZ, calibration=CalibrationOptions(images=8))
    return api.quantize(str(resource("datasets", "demo.pt")), data=demo_data, options=options)


@pytest.fixture(scope="session")
def exported(demo_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportedModel]:
    """Artifacts of the quantized model by target, each exported once."""

    def get(target: str) -> ExportedModel:
        def make(folder: Path) -> ExportedModel:
            (model,) = api.export(demo_artifact, targets=target, output=folder).exports
            return model

        return once(tmp_path_factory, f"demo-{target}", make)

    return get
