"""Whether a data set's labels are those of a model's task, seen from its first label files before a training starts.

Ultralytics leaves out images whose labels it cannot read, one by one, and ends when none is left. One broken file stays
its affair; a data set of which none can be read is another task's.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..bridge import val as host
from ..errors import DataError
from ..runtime.tasks import TaskSpec, spec_of
from ..types import ModelInfo
from .class_folders import check_class_folders, split_folder
from .convert import as_yolo
from .dataset import class_names_of, load_yaml, split_paths
from .image_files import is_without_yaml, list_images

SPLITS = ("train", "val")
FIRST = 32
"""Images of a split whose labels are read, until one has objects."""


def check_labels(data: str | os.PathLike[str], info: ModelInfo) -> None:
    """Read the first labels of each split that trains or chooses the best epoch.

    Args:
        data: What is trained on. A folder of images without a yaml has no labels.
        info: The model.

    Raises:
        DataError: None of them can be read, as those of another task or number of keypoints; or a split or a class's
            images are missing.
    """
    source = Path(as_yolo(data, task=info.task, names=info.names))
    if spec_of(info.task).class_folders:
        for split in SPLITS:
            folder = split_folder(source, split)
            check_class_folders(folder, list_images([folder], str(data)))
    elif not is_without_yaml(source):
        _check_files(source, str(data), info)


def _check_files(yaml: Path, data: str, info: ModelInfo) -> None:
    file, content = load_yaml(yaml)
    described = replace(info, names=class_names_of(content, file))
    task = spec_of(info.task)
    # first: a wrong kpt_shape would make every line look malformed
    task.check_data(content, str(file), described)
    for split in SPLITS:
        images = list_images(split_paths(content, file, split), data)[:FIRST]
        _check_split(task, images, described)


def _check_split(task: TaskSpec, images: list[Path], info: ModelInfo) -> None:
    broken: DataError | None = None
    for place in host.label_paths(images):
        try:
            if len(task.read_labels(place, info).classes):
                return
        except DataError as exc:
            broken = broken or exc
    if broken is not None:
        raise broken
