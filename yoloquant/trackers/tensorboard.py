"""TensorBoard: an event file in the run's folder, as Ultralytics writes one beside training."""

from __future__ import annotations

from typing import ClassVar

from .base import TrackedRun, Tracker


class TensorBoard(Tracker):
    """Scalars, the summary as text, and pictures."""

    title: ClassVar[str] = "TensorBoard"
    setting: ClassVar[str] = "tensorboard"
    module: ClassVar[str] = "tensorboard"

    def log(self, run: TrackedRun) -> None:
        """See ``Tracker.log``."""
        from torch.utils.tensorboard import SummaryWriter

        from ..runtime.io.images import decode_image

        # beside the results: ``tensorboard --logdir`` over all runs finds it as it finds training's
        writer = SummaryWriter(str(run.folder))
        try:
            for name, value in run.metrics.items():
                writer.add_scalar(f"{run.verb}/{name}", value, 0)
            for name, values in run.series.items():
                for step, value in values:
                    writer.add_scalar(f"{run.verb}/{name}", value, step)
            parameters = "".join(f"- {key}: `{value}`\n" for key, value in run.parameters.items())
            writer.add_text(run.verb, f"{run.text}\n\n{parameters}")
            for path in run.pictures:
                image = decode_image(path)
                if image is not None:
                    # OpenCV reads BGR
                    writer.add_image(path.stem, image[..., ::-1], dataformats="HWC")
        finally:
            writer.close()
