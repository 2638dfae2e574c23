"""The one bridge to Ultralytics for models: from a checkpoint file, or a live model, to a ``HostModel``.

Only the stable parts of Ultralytics 8.3 and 8.4 are used. Nothing is patched and nothing is downloaded.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, UsageError, first_line
from ..runtime.core.folder_check import file_sha256
from ..types import Task
from . import safe_unpickler
from .checkpoint_file import ALLOWED, OTHER_MODELS, CheckpointFile, foreign_names, inspect_file
from .checkpoint_names import RefusedError
from .host_model import ORIGIN, HostModel, Origin, weights_sha256
from .input_size import check_imgsz
from .installed import offline, ultralytics_version

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

STATE_KEY = "yoloquant"
CLASS_ARGUMENTS = ("single_cls", "classes")
"""Training arguments that say which classes a model saw."""
NATIVE_KEY = "modelopt"
"""Key under which Ultralytics' own QAT stores the state of its quantizers."""


def load_model(model: Any, *, allow_unsafe: bool = False) -> HostModel:
    """Load a checkpoint, or take over a live model.

    Args:
        model: Path of a ``.pt`` file, an ``ultralytics.YOLO``, or one of its ``BaseModel`` modules.
        allow_unsafe: Read a file that needs classes outside Ultralytics' allow-list. Such a file can run any code.

    Returns:
        The model; a live one is copied, so that the caller's stays as it is.

    Raises:
        ModelError: The file is missing, corrupt, unsafe, or not a YOLO that can be quantized.
    """
    if isinstance(model, str) and not model.strip():
        raise ModelError("model is empty; give the path of a trained Ultralytics checkpoint, for instance best.pt")
    if isinstance(model, (str, os.PathLike)):
        return _load_file(Path(model), allow_unsafe)
    # by what they hold and not by class: importing Ultralytics' classes to ask takes seconds
    inner = getattr(model, "model", None)
    module: Any = inner if hasattr(inner, "model") else model  # a YOLO holds a BaseModel, which holds the layers
    # a YOLO made from an export keeps the path in ``model``
    if not hasattr(module, "state_dict") or isinstance(inner, str):
        raise ModelError(
            f"got {type(model).__name__}, which holds no PyTorch model; allowed are a path to a .pt checkpoint, an "
            "ultralytics.YOLO made from one, or its .model"
        )
    source = str(getattr(model, "ckpt_path", "") or getattr(module, "pt_path", "") or "live model")
    module, native = _without_quantizers(copy.deepcopy(module))
    args = getattr(module, "args", None)
    # a loaded module has a mapping, one that was trained here a namespace
    arguments = args if isinstance(args, dict) else vars(args) if hasattr(args, "__dict__") else {}
    trained = {k: arguments[k] for k in CLASS_ARGUMENTS if arguments.get(k)}
    return replace(_describe(module, source=source, sha256=weights_sha256(module)), native=native, trained=trained)


def check_path(path: Path) -> None:
    """Refuse a path where no file is; it imports nothing heavy, so it comes before everything else.

    Raises:
        ModelError: There is none, or it is a folder.
    """
    if path.is_dir():
        found = sorted(each.name for each in path.glob("*.pt"))
        holds = f"holds {', '.join(found)}" if found else "holds no checkpoint (.pt)"
        raise ModelError(f"model '{path}' does not exist: it is a folder that {holds}; give the checkpoint itself")
    if not path.is_file():
        raise ModelError(
            f"model '{path}' does not exist (looked in {path.resolve().parent}); give the path of a trained "
            "Ultralytics checkpoint, for instance runs/detect/train/weights/best.pt"
        )


def _load_file(path: Path, allow_unsafe: bool) -> HostModel:
    check_path(path)
    if path.suffix.lower() != ".pt":
        raise ModelError(
            f"model '{path}' is a {path.suffix or 'suffix-less'} file; allowed is a PyTorch checkpoint (.pt). Exports "
            "such as .onnx hold no trainable weights: start from the checkpoint that they were made from"
        )
    checkpoint, unsafe = _read_checkpoint(path, allow_unsafe)
    # after what needs no torch: a wrong path is answered at once
    from torch import nn

    if not isinstance(checkpoint, dict):
        raise ModelError(f"'{path}' holds a {type(checkpoint).__name__}, not an Ultralytics checkpoint")
    # in Ultralytics' order: during training both are there, and the average is what it validates
    module = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"'{path}' is a PyTorch file without a YOLO in it (keys: {', '.join(map(str, list(checkpoint)[:8]))}); "
            "an Ultralytics checkpoint holds the model under 'model' or 'ema'"
        )
    if not _built(module):
        raise ModelError(f"'{path}' is damaged (a layer in it was never built); copy it again or retrain")
    # before anything copies the module: records of classes that are not rebuilt cannot be used
    safe_unpickler.without_records(module)
    args = checkpoint.get("train_args")
    state = checkpoint.get(STATE_KEY) or {}
    if not isinstance(state, dict):
        raise ModelError(f"what '{path}' holds under '{STATE_KEY}' is damaged; quantize the original checkpoint again")
    native = checkpoint.get(NATIVE_KEY) or {}
    if not isinstance(native, dict):
        raise ModelError(f"what '{path}' holds under '{NATIVE_KEY}' is not the state of native QAT; train it again")
    imgsz = args.get("imgsz") if isinstance(args, dict) else None
    # of the file, so that people can compare it with sha256sum
    host = _describe(module, source=str(path), sha256=file_sha256(path), imgsz=imgsz, state=state, unsafe=unsafe)
    trained = {k: args[k] for k in CLASS_ARGUMENTS if args.get(k)} if isinstance(args, dict) else {}
    return replace(host, native=native, trained=trained)


def _built(module: nn.Module) -> bool:
    """Whether every layer has what torch gives each: a file whose pickle lost a step loads, and fails much later."""
    parts = {"_parameters", "_buffers", "_modules"}
    try:
        return all(parts <= vars(layer).keys() for layer in module.modules())
    except AttributeError:  # what stands in a layer's place is none
        return False


def _without_quantizers(module: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    """Take the quantizers of native QAT out of a live model (in place) and return their state beside it."""
    if not any(type(m).__name__ == "TensorQuantizer" for m in module.modules()):  # as Ultralytics recognises them
        return module, {}
    from ultralytics.utils import torch_utils

    # looked for and not told by version: releases before 8.4.190 have no quantizers to strip
    if not hasattr(torch_utils, "strip_qat"):
        raise ModelError(
            "the model holds ModelOpt quantizers, which this Ultralytics cannot take out; allowed are a float model or "
            "the checkpoint file of native QAT, which Ultralytics 8.4.190 or later writes"
        )
    # read first: stripping forgets the ranges
    state: dict[str, Any] = torch_utils.qat_state(module) or {}
    torch_utils.strip_qat(module)
    return module, state


def _read_checkpoint(path: Path, allow_unsafe: bool) -> tuple[Any, bool]:
    """Read a checkpoint, without running its code if that can be; the flag tells whether that was unsafe.

    Ultralytics' own loader is not asked: for some names (``yolov5n.pt``) it looks for another file and downloads it.
    """
    # from the bytes alone, so that a model of another project is named before anything of it is built
    file = inspect_file(path)
    with offline(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about the format that it wrote before 1.6
        try:
            return safe_unpickler.read(path), False
        except RefusedError as exc:
            if not allow_unsafe:
                raise ModelError(_unsafe(path, file, exc)) from exc
        except Exception as exc:  # a damaged pickle may raise anything
            raise ModelError(f"'{path}' is damaged ({first_line(exc)}); copy it again or retrain") from exc
        logger.warning("reading %s runs code from the file, as allow_unsafe=true permits", path)
        try:
            return safe_unpickler.read(path, trusted=True), True
        except Exception as exc:  # an untrusted pickle may raise anything
            raise ModelError(f"'{path}' cannot be read even unsafely: {first_line(exc)}") from exc


def _unsafe(path: Path, file: CheckpointFile, exc: RefusedError) -> str:
    # not unsafe but too new: allow_unsafe would not help
    if exc.name.startswith("ultralytics.") or exc.name.startswith("torch.nn."):
        return (
            f"'{path}' needs {exc.name}, which the installed Ultralytics {ultralytics_version()} does not have; "
            "install the release that the model was trained with"
        )
    foreign = foreign_names(file.names)
    package = foreign[0].split(".")[0] if foreign else "the file"
    return (
        f"'{path}' cannot be read safely: {exc}, and reading it would run code from the file. If you trust where it "
        f"comes from and {package} can be imported here, pass allow_unsafe=true"
    )


def _describe(
    module: nn.Module,
    *,
    source: str,
    sha256: str,
    imgsz: Any = None,
    state: dict[str, Any] | None = None,
    unsafe: bool = False,
) -> HostModel:
    layers = getattr(module, "model", None)
    names = getattr(module, "names", None)
    other = next((OTHER_MODELS[k.__name__] for k in type(module).__mro__ if k.__name__ in OTHER_MODELS), None)
    if other is not None:
        raise ModelError(f"'{source}' is {other}; {ALLOWED}")
    # what everything below reads; a torch module of another kind lacks at least one
    if layers is None or names is None or not hasattr(module, "stride"):
        raise ModelError(f"'{source}' holds a {type(module).__name__}, not a YOLO (no layers, names or stride)")
    task = getattr(module, "task", None) or _guess_task(layers[-1])
    try:
        known = Task(task)
    except ValueError:
        raise ModelError(
            f"'{source}' is a model of task '{task}'; allowed are {', '.join(t.value for t in Task)}"
        ) from None
    if isinstance(names, (list, tuple)):
        names = dict(enumerate(names))
    channels = _channels(module)
    # calibration and every prepared image are of three channels
    if channels != 3:
        raise ModelError(
            f"'{source}' takes images of {channels} channel{'s' if channels > 1 else ''}; allowed are models of colour "
            "images, with 3 channels: train it with channels: 3 in the data yaml"
        )
    # checkpoints are stored in half precision; ranges and folding want float32
    module = module.float().eval()
    # the coarsest level decides which input sizes are possible
    stride = int(max(float(s) for s in module.stride))  # type: ignore[union-attr]
    # here and not in calibration, where NaN shows up in every tensor behind the first one
    bad = [n for n, p in module.state_dict().items() if p.is_floating_point() and not bool(p.isfinite().all())]
    if bad:
        raise ModelError(f"'{source}' has NaN or infinite weights in {bad[0]} ({len(bad)} tensors); retrain the model")
    origin = _origin(module, source, sha256)
    # it travels with the module through every checkpoint that is written from now on
    # as plain data: Ultralytics could not unpickle a class of ours where this package is not installed
    setattr(module, ORIGIN, asdict(origin))
    return HostModel(
        module=module,
        task=known,
        # by index: a mapping from a file keeps any order
        names=tuple(str(names[i]) for i in sorted(names)),
        stride=stride,
        channels=channels,
        imgsz=_trained_size(imgsz, stride),
        source=source,
        sha256=sha256,
        state=dict(state or {}),
        unsafe=unsafe,
        origin=origin,
    )


def _channels(module: Any) -> int:
    """Input channels: what the first convolution of a usual model reads, else what the model's yaml says."""
    first = getattr(module.model[0], "conv", None)
    if isinstance(read := getattr(first, "in_channels", None), int) and type(module.model[0]).__name__ == "Conv":
        return read
    # ``ch`` is what earlier releases called it
    described = getattr(module, "yaml", None) or {}
    return int(described.get("channels") or described.get("ch") or 3)


def _origin(module: nn.Module, source: str, sha256: str) -> Origin:
    """What a module says that it was made from; itself if it says nothing that can be read."""
    stored: Any = getattr(module, ORIGIN, None)
    known = isinstance(stored, dict) and set(stored) == {f.name for f in fields(Origin)}
    if known and all(isinstance(value, str) for value in stored.values()):
        return Origin(**{**stored, "name": Path(stored["name"]).name})  # a name, never a path out of some file
    return Origin(Path(source).name, sha256, weights_sha256(module))


def _trained_size(imgsz: Any, stride: int) -> tuple[int, int] | None:
    try:
        return check_imgsz(imgsz, stride) if imgsz else None
    except UsageError:
        # no reason to refuse the weights: the size can be given
        logger.warning("the checkpoint says imgsz=%s, which its stride of %d does not allow; ignored", imgsz, stride)
        return None


def _guess_task(head: nn.Module) -> str:
    kinds = {
        "Detect": "detect",
        "v10Detect": "detect",
        "Segment": "segment",
        "Pose": "pose",
        "OBB": "obb",
        "Classify": "classify",
    }
    names = [kind.__name__ for kind in type(head).__mro__]  # Segment26 is a Segment, which is a Detect
    return next((kinds[n] for n in names if n in kinds), names[0])
