"""The ExecuTorch target: a folder with a ``.pte`` and its metadata."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...io import atomic_path
from ...runtime.backends.executorch import find_program
from ...types import ExportedModel, Task
from ..base import FP32, Capabilities, Device, Requirement, Target, tag
from ..export_metadata import METADATA, provenance_json, read_folder_metadata, ultralytics_metadata
from .scheme import SCHEME

if TYPE_CHECKING:
    from ...quantization.artifact import Artifact
    from ...quantization.plan import Plan
    from ...quantization.scheme import Scheme
    from .pte import Program

KEY = "executorch"
"""Where the delegate's share is in ``ExportedModel.metadata``."""
_GUIDE = Path(__file__).with_name("executorch.md.j2")
_SHOWN = 4
_QUANTIZED = "quantized_decomposed"  # kernels that Ultralytics does not register before it loads a file


class ExecuTorchTarget(Target):
    """A ``.pte`` whose convolutions, additions and concats run in XNNPACK's int8 kernels.

    It is a drop-in: ``ultralytics.YOLO(folder)`` loads it, in the layout of Ultralytics' own ExecuTorch exports, which
    are float alone.
    """

    name: ClassVar[str] = "executorch"
    extra: ClassVar[str] = "executorch"
    requires: ClassVar[tuple[str, ...]] = ("executorch",)
    runs_with: ClassVar[tuple[str, ...]] = ("executorch",)
    scheme: ClassVar[Scheme] = SCHEME
    suffix: ClassVar[str] = "_executorch_model"
    backend: ClassVar[str] = "executorch"
    devices: ClassVar[tuple[Device, ...]] = (
        Device(
            "ios",
            "iOS, Android and ARM boards (ExecuTorch)",
            (Requirement("executorch", "executorch", "1.5.1"),),
            ("executorch>=1.5.1", "torch>=2.13"),
            _GUIDE,
        ),
    )
    in_all: ClassVar[bool] = False  # its exporter takes a minute or more, for apps that ask for nothing else
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=(Task.DETECT,))

    def check(self, artifact: Artifact) -> None:
        """Raise unless the model can be exported.

        Raises:
            MissingExtraError: ExecuTorch is missing.
            TargetError: The task is not supported.
            PlanError: There is no plan, or it has more than 8 bits.
        """
        self.require()
        self.require_task(artifact.info.task)
        from ...graph.head_levels import head_levels

        self.int8_plan(artifact)
        head_levels(artifact.graph)

    def export(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write ``<stem>_executorch_model/``, and prove that the file holds the plan's scales.

        Raises:
            TargetError: The export failed or its result is not what the plan asks for.
            OutputError: The folder cannot be written.
        """
        self.check(artifact)
        return self._write(artifact, self.precision, folder, stem)

    def export_float(self, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
        """Write ``<stem>-fp32_executorch_model/``."""
        self.require()
        return self._write(artifact, FP32, folder, stem)

    def _write(self, artifact: Artifact, precision: str, folder: Path, stem: str) -> ExportedModel:
        from .locate import locate
        from .lower import lower
        from .pte import Program

        plan = None if precision == FP32 else self.plan(artifact)
        content = lower(artifact.graph, plan, bias=artifact.bias_for(self.scheme) if plan else None)
        program = Program.read(content)
        places = locate(artifact.graph, plan, program) if plan else {}
        # With the places, so that scales can be read back later without the graph.
        own = {**json.loads(provenance_json(artifact, plan)), "places": {k: list(v) for k, v in places.items()}}
        # one text among the keys that Ultralytics reads, as in every other artifact
        data = {**ultralytics_metadata(artifact), "yoloquant": json.dumps(own)}
        stem = f"{stem}{tag(precision)}"
        path = folder / f"{stem}{self.suffix}"
        with atomic_path(path) as temporary:
            temporary.mkdir()
            (temporary / f"{stem}.pte").write_bytes(content)
            _save_yaml(data, temporary / METADATA)
        return ExportedModel(
            target=self.name,
            path=path,
            info=artifact.info,
            layout=artifact.info.layout,
            drop_in=not any(name.startswith(_QUANTIZED) for name in program.kernels),
            precision=precision,
            scheme=plan.scheme if plan else "",
            size_bytes=sum(f.stat().st_size for f in path.iterdir()),
            metadata={**artifact.metadata(), KEY: delegation(program)},
            notes=(*(plan.notes if plan else ()), summary(program)),
        )

    def read_scales(self, exported: ExportedModel) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Scale and zero_point of every point, read from the ``.pte``.

        Raises:
            ArtifactError: The folder is damaged.
            TargetError: A point has no int8 value in the file.
        """
        from ...quantization.plan import Plan
        from .locate import read_points
        from .pte import Program

        own = read_folder_metadata(exported.path)
        if not own.get("plan"):
            return {}
        plan: Plan = Plan.from_dict(own["plan"])
        places = {str(name): (int(index), int(value)) for name, (index, value) in own["places"].items()}
        return read_points(Program.load(find_program(exported.path)), plan.points, places)


def delegation(program: Program) -> dict[str, Any]:
    """What runs in XNNPACK and what outside, as plain data."""
    return {
        "delegates": len(program.subgraphs),
        "delegated": program.delegated,
        "outside": dict(Counter(program.kernels).most_common()),
    }


def summary(program: Program) -> str:
    """The same in a sentence."""
    outside = Counter(program.kernels)
    total = program.delegated + sum(outside.values())
    text = f"{program.delegated} of {total} operations run in XNNPACK, in {len(program.subgraphs)} delegates"
    if not outside:
        return text
    few = ", ".join(f"{count} {name}" for name, count in outside.most_common(_SHOWN))
    return f"{text}; portable kernels run {few}{', ...' if len(outside) > _SHOWN else ''}"


def _save_yaml(data: Mapping[str, Any], path: Path) -> None:
    import yaml

    path.write_text(yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True), encoding="utf-8")
