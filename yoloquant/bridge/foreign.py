"""Exports that Ultralytics wrote itself, opened by its own backends: what a user of ``YOLO(path)`` gets."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError
from ..runtime.core.model_info import HeadLayout, ModelInfo, Task
from ..runtime.core.runner import Runner
from .val import attribute

# without ".mnn": Ultralytics runs it, and its reader of metadata, which tells what a file holds, does not read it
SUFFIXES = frozenset({".onnx", ".tflite", ".torchscript", ".engine", ".mlpackage"})
FOLDERS = ("_openvino_model", "_saved_model", "_ncnn_model", "_paddle_model", "_executorch_model", "_imx_model")
CHECKPOINT = ".pt"
_LITERALS = ("imgsz", "names", "kpt_shape", "args")


@dataclass(frozen=True)
class ForeignArtifact:
    """A file or folder that this project did not make.

    Attributes:
        path: Where it is.
        info: What its own metadata say of the model.
        layout: What its outputs hold.
        precision: What its metadata say of its precision, in words; empty if nothing.
        maker: What wrote it.
        arguments: What it was exported with, by Ultralytics' names.
    """

    path: Path
    info: ModelInfo
    layout: HeadLayout
    precision: str = ""
    maker: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Size on disk."""
        # a folder is one artifact: OpenVINO's weights lie beside its graph
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())

    def open(self, threads: int | None = None) -> Runner:
        """Open it as ``YOLO(path)`` does.

        Raises:
            ArtifactError: Ultralytics' backend refuses it.
        """
        return ForeignRunner(self, threads)


def is_foreign(path: Path) -> bool:
    """Whether a path looks like an export that Ultralytics can open."""
    # by name alone, since opening takes the runtime; what it holds is read in ``describe_foreign``
    return path.suffix.lower() in SUFFIXES or path.name.endswith(FOLDERS)


def describe_foreign(path: Path) -> ForeignArtifact:
    """Describe an export by its own metadata, without loading it.

    Raises:
        ArtifactError: It does not exist, or says nothing of the model.
    """
    if not path.exists():
        raise ArtifactError(f"artifact '{path}' does not exist")
    data = _metadata(path)
    stated = data.get("args")
    args: dict[str, Any] = stated if isinstance(stated, dict) else {}
    try:
        names = data["names"]
        named = dict(enumerate(names)) if isinstance(names, list) else {int(k): str(v) for k, v in names.items()}
        height, width = (int(side) for side in data["imgsz"])
        kpt = data.get("kpt_shape")
        # as text: some formats hold no truth values. NMS in the export makes the outputs final as well
        ends = str(data.get("end2end", False)).lower() == "true" or bool(args.get("nms", False))
        info = ModelInfo(
            Task(str(data["task"])),
            tuple(named[i] for i in range(len(named))),
            (height, width),
            stride=int(data.get("stride", 32)),
            end2end=ends,
            # Ultralytics' own default
            max_det=int(args.get("max_det", 300) or 300),
            kpt_shape=(int(kpt[0]), int(kpt[1])) if kpt else None,
        )
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        raise ArtifactError(
            f"artifact '{path}' does not say what model it holds (Ultralytics' metadata: task, names, imgsz; {exc!r}); "
            "export it with Ultralytics or yoloquant, or judge its results with predictions=<file>"
        ) from exc
    maker = f"Ultralytics {data['version']}" if "version" in data else "another program"
    return ForeignArtifact(path, info, info.layout, _precision(data, args), maker, dict(args))


def _metadata(path: Path) -> dict[str, Any]:
    # its own reader: where each format keeps its metadata is Ultralytics' business, and changes
    read = attribute("ultralytics.nn.backends.base:BaseBackend").read_metadata
    data = read(path)
    metadata = dict(data) if isinstance(data, dict) else {}
    for key in _LITERALS:
        if isinstance(metadata.get(key), str):
            try:
                # ONNX holds texts only: lists and mappings are written as Python literals there
                metadata[key] = ast.literal_eval(metadata[key])
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                # as if it were missing, which is reported with the keys that are needed
                metadata.pop(key)
    return metadata


def _precision(data: Mapping[str, Any], args: Mapping[str, Any]) -> str:
    for key, word in (("int8", "int8"), ("half", "fp16")):
        if str(args.get(key, data.get(key, False))).lower() == "true":
            return word
    # recent releases say it by bits
    quantize = str(args.get("quantize") or "")
    return {"8": "int8", "16": "fp16", "32": "fp32"}.get(quantize, quantize)


class ForeignRunner(Runner):
    """Ultralytics' backend behind the Runner interface.

    Args:
        artifact: What to open.
        threads: Threads of PyTorch for TorchScript; other runtimes keep Ultralytics' own choice.

    Raises:
        ArtifactError: The backend refuses it.
    """

    def __init__(self, artifact: ForeignArtifact, threads: int | None = None) -> None:
        import torch

        self.info, self.layout = artifact.info, artifact.layout
        self._threads = threads or torch.get_num_threads()
        try:
            self._model = attribute("ultralytics.nn.autobackend:AutoBackend")(
                str(artifact.path), device=torch.device("cpu"), fp16=artifact.precision == "fp16", verbose=False
            )
            self._model.eval()
        except Exception as exc:  # backends raise whatever their runtime does, also for one that is not installed
            raise ArtifactError(f"Ultralytics cannot open '{artifact.path}': {type(exc).__name__}: {exc}") from exc

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the model; see ``Runner.infer``."""
        import torch

        # set for this call alone: torch's number is one for the whole process, and other rows have theirs
        previous = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                result = self._model(torch.from_numpy(image))
        finally:
            torch.set_num_threads(previous)
        return tuple(_arrays(result))


def _arrays(values: Any) -> list[np.ndarray]:
    if isinstance(values, (tuple, list)):
        # flattened: which output is which is told by the layout, not by nesting
        return [array for value in values for array in _arrays(value)]
    return [np.array(values.float().cpu().numpy())]
