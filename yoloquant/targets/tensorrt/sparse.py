"""2:4 models: the file that TensorRT reads must have the zeros that training held."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import TargetError
from ...types import ExportedModel

if TYPE_CHECKING:
    from ...quantization.artifact import Artifact


def with_24(exported: ExportedModel, artifact: Artifact) -> ExportedModel:
    """The exported model with what was found out about its zeros; unchanged for one that is not 2:4.

    Raises:
        TargetError: A layer lost its pattern.
    """
    from ...sparsity.record import TWO_FOUR, sparse_record
    from ...sparsity.two_four import masks_24
    from .sparse_check import check_onnx_24

    module = artifact.model.module
    if sparse_record(module).get("kind") != TWO_FOUR:
        return exported
    # of the file and not of the module: folding, clipping and rounding have happened in between
    check = check_onnx_24(exported.path, masks_24(module).masks)
    if not check.ok:
        raise TargetError(
            f"{len(check.broken)} layers of {exported.path.name} are not 2:4 any more, first {check.broken[0]}; train "
            "the 2:4 model with yoloquant, which holds its zeros"
        )
    note = f"2:4 in {len(check.layers)} layers, read back from the file; build the engine with sparse=true"
    return replace(
        exported, metadata={**exported.metadata, "sparse_24": sorted(check.layers)}, notes=(*exported.notes, note)
    )
