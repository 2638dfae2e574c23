"""The runner of every artifact that the device-side runtime can run: the same code here and on the device."""

from __future__ import annotations

import numpy as np

from ..runtime.backends.base import Backend
from ..runtime.core.decode import quantize
from .base import Runner


class BackendRunner(Runner):
    """A network of the runtime behind the Runner interface.

    Args:
        backend: The loaded network.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend, self.info, self.layout = backend, backend.info, backend.layout

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network alone; the image becomes what its input takes."""
        outputs = self.backend.run(self._prepare(image))
        return tuple(o.copy() for o in outputs) if self.backend.reuses_outputs else outputs

    def _prepare(self, image: np.ndarray) -> np.ndarray:
        backend = self.backend
        if backend.input_quantization is not None:
            image = quantize(image, *backend.input_quantization, dtype=backend.input_dtype)
        image = image.transpose(0, 2, 3, 1) if backend.channels_last else image
        return np.ascontiguousarray(image, dtype=backend.input_dtype)

    def decode(self, outputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Turn the network's own outputs into the drop-in layout."""
        return self.backend.decode(outputs)

    def close(self) -> None:
        """Free the network."""
        self.backend.close()
