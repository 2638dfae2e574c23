"""The one contract of everything that infers: a network in a runtime, a traced module in PyTorch."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import numpy as np

from .model_info import HeadLayout, ModelInfo


class Runner(Protocol):
    """A loaded model that takes a prepared image and gives boxes and scores.

    Classes that infer inherit from it, and override what differs.

    Attributes:
        info: The model's description.
        layout: Layout of what ``__call__`` returns: DECODED or END2END, because raw heads are decoded by the runner.
    """

    info: ModelInfo
    layout: HeadLayout

    @abstractmethod
    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network alone (this is what latency measures).

        Args:
            image: float32 NCHW (1, channels, height, width), RGB, 0 to 1, letterboxed.

        Returns:
            The model's own outputs as float32 arrays, which the caller may keep.

        Raises:
            TargetError: The runtime failed.
        """

    def infer_picture(self, picture: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network on an image that this process has prepared; see ``infer``.

        Args:
            picture: The image as it was read, BGR uint8 (height, width, 3), for who prepares it elsewhere.
            image: The same as ``infer`` takes it.
        """
        return self.infer(image)

    def decode(self, outputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Turn the model's own outputs into the drop-in layout; the identity unless the head is raw."""
        return outputs

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Infer and decode: (1, 4 + nc, anchors) xywh and scores, or (1, max_det, 6) for end-to-end heads."""
        return self.decode(self.infer(image))

    def close(self) -> None:
        """Free what the runtime holds; nothing, unless a class says otherwise."""
        return None
