"""What accompanies an exported Coral file: the operator check, and the compiled file where that can be made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...io import atomic_path
from ...types import ExportedModel
from ..litert.metadata import pack, read
from .check import check
from .compiler import CompilerRun, compile_model, find_compiler
from .compiler_log import CompilerReport
from .edgetpu_options import EdgeTPUOptions
from .report import EdgeTPUReport

OPERATORS = "operators.txt"
KEY = "edgetpu"
"""Where the reports are in ``ExportedModel.metadata``."""


def compiled_path(path: Path) -> Path:
    """Where the compiled form of a file is put."""
    return path.with_name(f"{path.stem}_edgetpu{path.suffix}")


def accompany(exported: ExportedModel, host: Mapping[str, Any], options: EdgeTPUOptions) -> ExportedModel:
    """Check an exported file, compile it where that is possible, and add both to its description.

    Args:
        exported: What the LiteRT export wrote.
        host: Metadata for Ultralytics, repeated in the compiled file.
        options: Options of the target.

    Returns:
        The description. Its path stays the file that every machine can run; ``metadata["edgetpu"]["compiled"]`` names
        the one for the TPU, in the same folder, or is empty.

    Raises:
        OutputError: The compiled file cannot be written.
    """
    own, flatbuffer = read(exported.path)
    report = check(flatbuffer)
    facts: dict[str, Any] = {"check": report.to_dict(), "compiler": None, "compiled": ""}
    notes = (*exported.notes, *report.summary())
    target = compiled_path(exported.path)
    target.unlink(missing_ok=True)  # of an earlier export, which would no longer belong to this file
    if options.compiler.enabled and find_compiler():
        result = compile_model(flatbuffer, options.compiler)
        facts["compiler"] = result.report.to_dict()
        notes = (*notes, *result.report.summary())
        if result.report.succeeded:
            _write(target, result, host, own)
            facts["compiled"] = target.name
    return replace(exported, metadata={**exported.metadata, KEY: facts}, notes=notes)


def add_companions(model: Path, exported: ExportedModel) -> tuple[str, ...]:
    """Put the compiled form into a bundle, and ``operators.txt`` beside the model's folder; both in sentences.

    Args:
        model: The model's copy in the bundle.
        exported: What was exported.
    """
    facts = exported.metadata[KEY]
    if facts["compiled"]:
        compiled = Path(facts["compiled"]).name
        # By the name alone: a listing from elsewhere must not lead out of the export folder.
        shutil.copyfile(exported.path.with_name(compiled), model.with_name(compiled))
    report = EdgeTPUReport.from_dict(facts["check"])
    said = CompilerReport.from_dict(facts["compiler"]).summary() if facts["compiler"] else ()
    text = "\n".join([report.table(every=True), *said]) + "\n"
    (model.parent.parent / OPERATORS).write_text(text, encoding="utf-8", newline="\n")
    return (*report.summary(), *said)


def _write(path: Path, result: CompilerRun, host: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Write the compiled flatbuffer; where its points were cannot be said any more."""
    kept = {k: v for k, v in own.items() if k != "tensors"}
    with atomic_path(path) as temporary:
        temporary.write_bytes(pack(result.content, host, {**kept, "compiled": result.report.version}))
