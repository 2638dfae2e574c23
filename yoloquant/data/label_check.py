"""Whether a data set is one of a model's task and classes, seen from its first files before a training starts.

Ultralytics leaves out images that it cannot read, or whose labels it cannot, one by one, and ends when none is left.
One broken file stays its affair; a data set of which none can be read is another task's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..bridge import val as host
from ..errors import DataError
from ..runtime.core.class_order import plain_name
from ..runtime.tasks import TaskSpec, spec_of
from ..types import ModelInfo
from .class_folders import check_class_folders, class_names, split_folder
from .convert import as_yolo
from .dataset import class_names_of, load_yaml, split_paths
from .image_check import check_images
from .image_files import is_without_yaml, list_images

SPLITS = ("train", "val")
FIRST = 32
"""Images of a split that are looked at: until one is whole, and until the labels of one have objects."""


def check_labels(data: str | os.PathLike[str], info: ModelInfo, *, single: bool = False) -> None:
    """Read class names, and the first images and labels of each split that trains or chooses the best epoch.

    Args:
        data: What is trained on. A folder of images without a yaml has no labels.
        info: The model.
        single: Whether all objects are trained as one class, so that names do not matter.

    Raises:
        DataError: The classes are not the model's, or in another order; no image can be read; no label can be, as those
            of another task or number of keypoints; or a split or a class's images are missing.
    """
    source = Path(as_yolo(data, task=info.task, names=info.names))
    if spec_of(info.task).class_folders:
        _check_folders(source, str(data), info)
    elif not is_without_yaml(source):
        _check_files(source, str(data), info, single)


def check_classes(names: Sequence[str], info: ModelInfo, data: str) -> None:
    """Raise DataError unless classes have the model's number and order: training reads labels by index.

    Other names in the model's number are what people call the same classes.
    """
    if len(names) != len(info.names):
        raise DataError(
            f"the model knows {len(info.names)} classes, data '{data}' has {len(names)}; give the data set that it was "
            "trained on, or fine-tune the float model on these data first"
        )
    theirs, ours = [plain_name(name) for name in names], [plain_name(name) for name in info.names]
    if theirs != ours and sorted(theirs) == sorted(ours):
        index = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        raise DataError(
            f"data '{data}' has the model's classes in another order: class {index} is '{names[index]}' there and "
            f"'{info.names[index]}' in the model, and training reads labels by index; count them as the model does"
        )


def _check_folders(source: Path, data: str, info: ModelInfo) -> None:
    for split in SPLITS:
        folder = split_folder(source, split)
        images = list_images([folder], data)
        check_class_folders(folder, images)
        if split == SPLITS[0]:  # whose folders count the classes, sorted
            names = class_names(folder)
            renamed = host.renamed_classes(names)
            check_classes([renamed.get(name, name) for name in names], info, data)
        _check_images(images[:FIRST])


def _check_files(yaml: Path, data: str, info: ModelInfo, single: bool) -> None:
    file, content = load_yaml(yaml)
    names = class_names_of(content, file)
    if not single:
        check_classes(names, info, data)
    described = replace(info, names=names)
    task = spec_of(info.task)
    # first: a wrong kpt_shape would make every line look malformed
    task.check_data(content, str(file), described)
    for split in SPLITS:
        images = list_images(split_paths(content, file, split), data)[:FIRST]
        _check_images(images)
        _check_split(task, images, described)


def _check_images(images: Sequence[Path]) -> None:
    broken: DataError | None = None
    for path in images:
        try:
            check_images([path])
            return
        except DataError as exc:
            broken = broken or exc
    if broken is not None:
        raise broken


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
