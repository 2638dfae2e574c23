"""What a ``.pt`` file is, told from its bytes before anything of it is built.

The names of the classes in a pickle can be listed without building them (``pickletools``), which is how a file of
another project is recognised whatever it is called.
"""

from __future__ import annotations

import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import ModelError
from ..runtime.core.damaged import UNREADABLE
from .checkpoint_names import LAYERS

_LEGACY_PICKLES = 4  # of PyTorch before 1.6: magic number, protocol, description of the system, then the object
# far more than any checkpoint names: a file made to exhaust memory is refused
_MOST_NAMES = 100_000
OTHER_MODELS = {
    "RTDETRDetectionModel": "an RT-DETR model, whose transformer decoder cannot be quantized here",
    "WorldModel": "a YOLO-World model, whose classes are texts that a second network reads at run time",
    "YOLOEModel": "a YOLOE model, whose classes are texts or pictures given at run time",
    "YOLOESegModel": "a YOLOE model, whose classes are texts or pictures given at run time",
    "SAM": "a Segment Anything model, which segments what it is pointed at",
    "SAM2Model": "a Segment Anything model, which segments what it is pointed at",
    "SemanticSegmentationModel": "a semantic segmentation model",
}
_OTHER_PROJECTS = {
    "models": "a checkpoint of the old YOLOv5 project (github.com/ultralytics/yolov5) or one that came from it, YOLOv7 "
    "for instance",
    "super_gradients": "a YOLO-NAS model of SuperGradients",
    "yolov6": "a YOLOv6 checkpoint of its own project",
    "yolox": "a YOLOX checkpoint",
    "mmengine": "a checkpoint of an OpenMMLab project",
    "mmcv": "a checkpoint of an OpenMMLab project",
    "detectron2": "a Detectron2 checkpoint",
    "effdet": "an EfficientDet checkpoint",
    "rfdetr": "an RF-DETR checkpoint",
    "ppdet": "a PaddleDetection checkpoint",
}
ALLOWED = "allowed are detect, segment, pose, obb and classify models that Ultralytics 8 trained (YOLOv5u to YOLO26)"


@dataclass(frozen=True)
class CheckpointFile:
    """What was found out about a file.

    Attributes:
        names: Full names of every class and function that its pickle names.
        legacy: Whether PyTorch before 1.6 wrote it, or its format was asked for: no zip archive.
    """

    names: frozenset[str]
    legacy: bool = False


def inspect_file(path: Path) -> CheckpointFile:
    """Look into a file, and refuse what cannot be a checkpoint.

    Raises:
        ModelError: It is empty, damaged, no PyTorch file, an export, or another project's model.
    """
    with path.open("rb") as stream:
        # enough to tell a web page or a Git LFS pointer from a checkpoint
        head = stream.read(512)
    if not head:
        raise ModelError(f"'{path}' is empty; copy the checkpoint again")
    # by its content: the suffix is .pt for either format, and for much else
    if zipfile.is_zipfile(path):
        file = CheckpointFile(_names_in_archive(path))
    # a bare pickle of protocol 2, which PyTorch wrote before 1.6
    elif head[:2] == b"\x80\x02":
        file = CheckpointFile(_names_in_legacy(path), legacy=True)
    else:
        raise ModelError(f"'{path}' is no PyTorch checkpoint: {_what(head)}; allowed is a .pt that Ultralytics wrote")
    # by classes, before these are looked for: "no module named models" would tell nobody that it is a YOLOv5
    refuse_other_projects(file.names, str(path))
    return file


def _what(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, so the file itself was never fetched (git lfs pull)"
    if head.startswith(b"PK"):
        return "it is an archive that was cut short, so it is damaged; copy it again"
    # a download that needed a login is saved as its page
    if head.lstrip()[:1] == b"<":
        return "it is a web page, so the download went wrong"
    try:
        head.decode("utf-8")
        return "it is a text"
    except UnicodeDecodeError:
        return "it is damaged, or of another kind"


def _names_in_archive(path: Path) -> frozenset[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
            if archive.testzip() is not None:  # torch itself does not look at the checksums
                raise ModelError(f"'{path}' is damaged (its checksums do not match); copy it again")
            # torch.jit.save writes it, torch.save does not
            if any(entry.endswith("constants.pkl") for entry in entries):
                raise ModelError(
                    f"'{path}' is a TorchScript export, which holds no trainable weights; start from the checkpoint "
                    "that it was made from"
                )
            pickles = [entry for entry in entries if entry.endswith("data.pkl")]
            if not pickles:
                raise ModelError(f"'{path}' is an archive without a PyTorch model in it; allowed is a .pt checkpoint")
            with archive.open(pickles[0]) as stream:
                return frozenset(_names(stream.read(), 1))
    except UNREADABLE as exc:
        raise ModelError(f"'{path}' is damaged ({exc}); copy it again") from exc


def _names_in_legacy(path: Path) -> frozenset[str]:
    try:
        with path.open("rb") as stream:
            return frozenset(_names(stream, _LEGACY_PICKLES))
    except (ValueError, OSError, EOFError, IndexError) as exc:
        raise ModelError(f"'{path}' is damaged, or no PyTorch checkpoint ({exc}); copy it again") from exc


def _names(stream: bytes | IO[bytes], pickles: int) -> set[str]:
    """Names in so many pickles that follow each other; strings are remembered as protocol 4 needs it."""
    names: set[str] = set()
    strings: list[str] = []
    for _ in range(pickles):
        # stops at the end of each pickle, and leaves the stream there
        for opcode, argument, _position in pickletools.genops(stream):
            if opcode.name in {"GLOBAL", "INST"}:
                names.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                names.add(".".join(strings[-2:]))
            elif isinstance(argument, str) and "UNICODE" in opcode.name:
                # STACK_GLOBAL takes module and name from the stack: they are the last two texts
                strings = [*strings[-3:], argument]
            if len(names) > _MOST_NAMES:
                raise ValueError("it names too many classes")
    return names


def refuse_other_projects(names: frozenset[str], source: str) -> None:
    """Refuse models that are no YOLO of Ultralytics 8, by the classes that they are made of.

    Raises:
        ModelError: It is one.
    """
    for name in sorted(names):
        module, _, attribute = name.rpartition(".")
        if name.startswith("ultralytics.") and attribute in OTHER_MODELS and ".utils" not in module:
            raise ModelError(f"'{source}' is {OTHER_MODELS[attribute]}; {ALLOWED}")
    if any(name.startswith(("ultralytics.nn.tasks.", "ultralytics.nn.modules.")) for name in names):
        return  # Ultralytics' own, whatever else it names
    for name in sorted(names):
        project = name.split(".")[0]
        if project in _OTHER_PROJECTS:
            raise ModelError(f"'{source}' is {_OTHER_PROJECTS[project]}, which Ultralytics 8 cannot run; {ALLOWED}")


def foreign_names(names: frozenset[str]) -> list[str]:
    """Names of packages other than PyTorch, Ultralytics and NumPy, for a message."""
    own = (
        "torch.",
        "torchvision.",
        "ultralytics.",
        "numpy.",
        "collections.",
        "builtins.",
        "pathlib",
        "copyreg.",
        *LAYERS,
    )
    return sorted(name for name in names if not name.startswith(own))
