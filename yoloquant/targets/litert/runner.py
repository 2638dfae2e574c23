"""Run a ``.tflite`` on this machine's CPU through the LiteRT interpreter (XNNPACK kernels)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ...decode import decode_levels, dequantize, quantize
from ...errors import ArtifactError, TargetError
from ...types import HeadLayout, ModelInfo
from ..base import Runner


class LiteRTRunner(Runner):
    """A loaded ``.tflite``.

    Args:
        path: The file.
        info: The model that it holds.
        raw: Whether its outputs are the head's raw levels.
        threads: Threads of the interpreter; None uses every core.

    Raises:
        ArtifactError: The file does not hold such a model.
        TargetError: The interpreter cannot run it.
    """

    def __init__(self, path: Path, info: ModelInfo, *, raw: bool, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        if not path.is_file():
            raise ArtifactError(f"'{path}' does not exist; export it again")
        try:
            self._interpreter = Interpreter(str(path), num_threads=threads or os.cpu_count() or 1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as exc:
            raise TargetError(f"LiteRT cannot load '{path}': {exc}") from exc
        self.info, self.layout, self._raw = info, info.layout, raw
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._ordered(self._interpreter.get_signature_list())
        self._nhwc = tuple(self._input["shape"]) == (1, *info.imgsz, info.channels)
        if not self._nhwc and tuple(self._input["shape"]) != (1, info.channels, *info.imgsz):
            raise ArtifactError(f"'{path}' takes {tuple(self._input['shape'])}, its metadata says imgsz={info.imgsz}")

    def _ordered(self, signatures: dict[str, Any]) -> list[dict[str, Any]]:
        """Outputs in the order of the converted module's results; the interpreter's own order may differ."""
        details = self._interpreter.get_output_details()
        if not signatures:
            return list(details)
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        by_name = {name: d["index"] for name, d in runner.get_output_details().items()}
        names = sorted(by_name, key=lambda name: int(name.rsplit("_", 1)[-1]))
        by_index = {d["index"]: d for d in details}
        return [by_index[by_name[name]] for name in names]

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network alone; integer inputs and outputs are converted here."""
        self._interpreter.set_tensor(self._input["index"], self._prepare(image))
        self._interpreter.invoke()
        return tuple(self._real(output) for output in self._outputs)

    def _prepare(self, image: np.ndarray) -> np.ndarray:
        dtype = self._input["dtype"]
        if dtype != np.float32:
            scale, zero_point = self._input["quantization"]
            image = quantize(image, scale, zero_point, dtype)
        return np.ascontiguousarray(image.transpose(0, 2, 3, 1) if self._nhwc else image)

    def _real(self, output: dict[str, Any]) -> np.ndarray:
        values: np.ndarray = self._interpreter.get_tensor(output["index"])
        return values if output["dtype"] == np.float32 else dequantize(values, *output["quantization"])

    def decode(self, outputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Raw levels to the drop-in layout, and fractions of the image to pixels."""
        if self._raw:
            half = len(outputs) // 2
            return (decode_levels(outputs[:half], outputs[half:], self.info),)
        if self.layout is HeadLayout.END2END:
            return outputs
        height, width = self.info.imgsz
        decoded = outputs[0].copy()
        decoded[:, :4] *= np.array([width, height, width, height], np.float32)[None, :, None]
        return (decoded,)

    def close(self) -> None:
        """Free the interpreter."""
        del self._interpreter
