"""From an image to its detections: preprocessing, the network, and selection."""

from __future__ import annotations

from types import TracebackType

import numpy as np

from ..backends.base import Backend
from ..tasks import spec_of
from .detections import PREDICT, Detections, Selection
from .letterbox import Letterbox
from .preprocess import Preprocessor


class Detector:
    """A loaded model that turns images into detections.

    The steps may run in different threads, each step in one: preprocessing of an image beside inference of another.
    ``preprocess`` writes into ``depth`` tensors in turn, so a tensor holds until as many more images were prepared;
    what ``infer`` returns holds until its next call.

    Args:
        backend: The network.
        selection: Thresholds of detection; the defaults are those of Ultralytics' ``predict``.
        depth: Number of input tensors.

    Attributes:
        info: The model.
        backend: The network.
        selection: Thresholds of detection.
        task: The rules of the model's task.
    """

    def __init__(self, backend: Backend, selection: Selection = PREDICT, *, depth: int = 3) -> None:
        self.info, self.backend, self.selection = backend.info, backend, selection
        self.task = spec_of(backend.info.task)
        # Three by default: one is filled, one waits, and one is read by the network.
        self._preprocessor = Preprocessor(backend, depth)

    def preprocess(self, image: np.ndarray, into: np.ndarray | None = None) -> tuple[np.ndarray, Letterbox]:
        """Turn an image into the network's input: letterboxed, or cropped for a classifier.

        Args:
            image: BGR uint8 (height, width, 3).
            into: A tensor from ``backend.new_input`` to fill; the next one of its own if None.

        Returns:
            What ``infer`` takes, equal bit by bit to the task's ``prepare(image)`` (quantized for an integer input);
            and where the image lies in it.

        Raises:
            DataError: It is not such an image.
        """
        return self._preprocessor(image, into)

    def infer(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network alone."""
        return self.backend.run(tensor)

    def postprocess(self, outputs: tuple[np.ndarray, ...], where: Letterbox) -> Detections:
        """Select detections.

        Args:
            outputs: What ``infer`` returned.
            where: What ``preprocess`` returned.

        Returns:
            Detections by falling score, in pixels of the original image, clipped to it.

        Raises:
            TargetError: The outputs have another shape than the model's, or hold NaN or infinity.
        """
        found = self.select(outputs, self.selection)
        return self.task.to_original(found, where)

    def select(self, outputs: tuple[np.ndarray, ...], selection: Selection) -> Detections:
        """Select detections with other thresholds; boxes stay in pixels of the network's input."""
        # The threshold goes along, so that raw heads decode only what can be selected.
        decoded = self.backend.decode(outputs, selection.conf)
        found = self.task.select(decoded, self.backend.layout, self.info, selection)
        if selection.class_conf is None:
            return found
        # Behind suppression, which compares boxes of one class alone: a box that drops another has a higher score.
        least = np.array(selection.class_conf, np.float32)
        return found.take(found.confidence > least[found.class_id])

    def __call__(self, image: np.ndarray) -> Detections:
        """Detections of one BGR image, in its own pixels."""
        tensor, where = self.preprocess(image)
        return self.postprocess(self.infer(tensor), where)

    def close(self) -> None:
        """Free the network."""
        self.backend.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
