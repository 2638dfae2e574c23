"""What every trainer of ours adds to Ultralytics': a class for each task, images without labels, zeros that stay.

Only stable extension points of Ultralytics 8.3 and 8.4 are used (``get_dataset``, ``optimizer_step`` and the like).
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

from ..bridge.checkpoint import load_model
from ..bridge.host_model import HostModel, model_info
from ..bridge.installed import ultralytics_version
from ..data.convert import as_yolo, is_foreign
from ..data.image_files import is_without_yaml
from ..errors import TrainingError, UsageError
from ..types import Task
from . import unlabelled

try:
    from ultralytics.utils.torch_utils import unwrap_model
except ImportError as exc:
    raise TrainingError(
        f"training needs a later Ultralytics than {ultralytics_version()}; it is tested with 8.4.190: "
        'pip install "ultralytics>=8.4.190"'
    ) from exc

if TYPE_CHECKING:
    from enum import Enum

    from .prune.masks import Masks

__all__ = ["HOSTS", "TaskTrainer", "unwrap_model"]

HOSTS: dict[str, type] = {
    Task.DETECT.value: DetectionTrainer,
    Task.SEGMENT.value: SegmentationTrainer,
    Task.POSE.value: PoseTrainer,
    Task.OBB.value: OBBTrainer,
    Task.CLASSIFY.value: ClassificationTrainer,
}
"""Ultralytics' trainer of every task."""


class TrainingSettings(Protocol):
    """What the options of every kind of training say."""

    @property
    def loss(self) -> Enum:
        """What is minimised."""

    @property
    def needs_labels(self) -> bool:
        """Whether that takes labels."""

    @property
    def allow_unsafe(self) -> bool:
        """Whether checkpoints may run code when they are read."""


class TaskTrainer:
    """A kind of training that becomes the trainer of the model's task.

    A kind subclasses this; for each task a class of its own inherits from the kind and from Ultralytics' trainer of the
    task. They are classes of their own, at the top of a module, because the processes of a distributed run import them
    by name.
    """

    fix: ClassVar[str] = "fine-tune the float model on these data first"  # ends the message about foreign classes
    by_task: ClassVar[dict[str, type]]
    masks: Masks | None = None  # of a sparse model, whose zeros stay
    unlabelled = False  # whether the data are images without labels

    if TYPE_CHECKING:  # what the classes of the tasks inherit from Ultralytics, as far as it is written to here
        accumulate: int
        epoch: int
        start_epoch: int
        resume: bool
        fitness: Any
        best_fitness: Any
        loss_items: Any

        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls) -> None:
        """Note which task a class is for."""
        super().__init_subclass__()
        # a kind of training, not one of its classes for a task
        if TaskTrainer in cls.__bases__:
            cls.by_task = {}
        else:
            # a table that fills itself: a new task needs a class and no line elsewhere
            cls.by_task.update({task: cls for task, trainer in HOSTS.items() if trainer in cls.__bases__})

    def __new__(cls, cfg: Any = None, overrides: dict[str, Any] | None = None, _callbacks: Any = None) -> Any:
        """Choose the trainer of the task."""
        # a class for a task was named, or chosen below
        if TaskTrainer not in cls.__bases__:
            return super().__new__(cls)
        # from the arguments alone: the model is read much later, inside Ultralytics' constructor
        task = (overrides or {}).get("task") or Task.DETECT.value
        if task not in cls.by_task:
            raise UsageError(f"task '{task}' cannot be trained here; allowed are {', '.join(cls.by_task)}")
        return super().__new__(cls.by_task[task])

    @property
    def settings(self) -> TrainingSettings:
        """The options of this kind of training."""
        raise NotImplementedError

    def source_model(self) -> HostModel:
        """The model that training starts from."""
        return load_model(self.args.model, allow_unsafe=self.settings.allow_unsafe)

    def get_dataset(self) -> Any:
        """Read Ultralytics' data sets, those of other formats, and plain folders of images without labels."""
        # converted before Ultralytics sees it, which takes any other path for a yaml or a download
        if is_foreign(self.args.data):
            self.args.data = as_yolo(self.args.data, task=Task(self.args.task), names=self.source_model().names)
        folder = Path(str(self.args.data))
        self.unlabelled = unlabelled.is_written(folder)  # for a resumed run, or by the parent of this process
        # a classifier's data set is a folder of folders, whose names are the labels
        if is_without_yaml(folder) and self.args.task != Task.CLASSIFY.value:
            # known only now, where the data are seen to have no labels; still before the model is set up
            if self.settings.needs_labels:
                raise UsageError(
                    f"data='{folder}' is a folder of images without labels; loss={self.settings.loss.value} needs "
                    "labels: give a data yaml, or loss=distill"
                )
            self.unlabelled = True
            keys = _described(self.source_model())
            written = unlabelled.write_data(folder, keys, self.save_dir, seed=self.args.seed)
            self.args.data = str(written)
        return super().get_dataset()  # type: ignore[misc]

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Build Ultralytics' data set, also of images without labels."""
        with unlabelled.accepted() if self.unlabelled else nullcontext():
            return super().build_dataset(img_path, mode, batch)  # type: ignore[misc]

    def check_classes(self, names: Any) -> None:
        """Refuse data whose number of classes is not the model's.

        Raises:
            UsageError: They differ; Ultralytics would train a new head.
        """
        known = self.data["names"]
        if len(known) != len(names):
            raise UsageError(
                f"the model knows {len(names)} classes, data='{self.args.data}' has {len(known)}; {self.fix}"
            )

    def set_class_weights(self) -> None:
        """Weigh classes as Ultralytics does, where there are labels."""
        if not self.unlabelled:
            super().set_class_weights()  # type: ignore[misc]

    def plot_training_labels(self) -> None:
        """Plot labels as Ultralytics does, where there are any."""
        if not self.unlabelled:
            super().plot_training_labels()  # type: ignore[misc]

    def optimizer_step(self) -> None:
        """Take Ultralytics' step; masked weights stay zero."""
        if self.masks is not None:
            self.masks.before_step(self)
        super().optimizer_step()  # type: ignore[misc]
        if self.masks is not None:
            self.masks.after_step(self)


def _described(source: HostModel) -> dict[str, Any]:
    """What a data yaml must say of a model."""
    shape = model_info(source, source.resolve_imgsz()).kpt_shape
    return {"names": dict(enumerate(source.names)), **({} if shape is None else {"kpt_shape": list(shape)})}
