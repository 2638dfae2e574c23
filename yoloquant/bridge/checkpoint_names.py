"""What a pickled checkpoint may name: layers, plain values, functions that rebuild them, and records of all else."""

from __future__ import annotations

import collections
import enum
import importlib
import os
import pickle
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

LAYERS = ("torch.nn.", "ultralytics.nn.modules", "ultralytics.nn.tasks", "torchvision.ops.", "torchvision.models.")
_LAYER_FILES = ("conv", "block", "head", "transformer", "utils", "activation")
_MOVED = {  # where classes lie that older releases kept elsewhere, or under another name
    "ultralytics.nn.modules.block.Silence": "torch.nn.modules.linear.Identity",
    "ultralytics.nn.tasks.YOLOv10DetectionModel": "ultralytics.nn.tasks.DetectionModel",
}
# what Ultralytics' classifiers are given as ``transforms``, by torchvision or itself
_TRANSFORMS = ("Compose", "Normalize", "Resize", "CenterCrop", "ToTensor", "ClassifyLetterBox")
_TRANSFORM_FILES = {  # as stored, and where the classes lie today
    "torchvision.transforms.transforms": "torchvision.transforms.transforms",  # since 8.1
    "ultralytics.data.augment": "ultralytics.data.augment",
    "ultralytics.yolo.data.augment": "ultralytics.data.augment",  # until 8.0.133
    "ultralytics.yolo.data.dataloaders.v5augmentations": "ultralytics.data.augment",
}


class Record:
    """An object of a class that is not rebuilt: its name and what was stored, as plain data.

    Attributes:
        kind: Full name of its class or function.
        arguments: What it was made from.
        state: What was stored of it.
    """

    kind = ""
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    # a pickle may call what getattr gave it; a record of the call is as harmless as the record itself
    def __call__(self, *arguments: Any) -> Record:
        """What calling a method of the object would have returned: another record."""
        return Record(self, *arguments)


class RefusedError(pickle.UnpicklingError):
    """The file names something that is not on the list, or asks for something that a checkpoint never needs.

    Args:
        message: What.
        name: The full name, if it is one.
    """

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


def make(kind: Any, arguments: tuple[Any, ...]) -> Any:
    """Make an object of a class on the list without running its constructor.

    Raises:
        RefusedError: The class is not on the list, or arguments are handed to it.
    """
    from torch import nn

    if is_record(kind):
        return kind(*arguments)
    known = isinstance(kind, type) and (issubclass(kind, nn.Module) or is_plain(kind))
    # a layer is stored without arguments; with some, __new__ could run code of the class
    if not known or arguments:
        raise RefusedError(f"it makes {getattr(kind, '__name__', kind)} from {len(arguments)} arguments")
    # without __init__, which of an Ultralytics model evaluates text from its yaml
    return kind.__new__(kind)


def is_record(value: Any) -> bool:
    """Whether a value is a class of records."""
    return isinstance(value, type) and issubclass(value, Record)


def is_array(value: Any) -> bool:
    """Whether a value is NumPy's; these alone may set slots."""
    import numpy as np

    return isinstance(value, (np.ndarray, np.dtype))


def is_plain(kind: type) -> bool:
    """Whether objects of a class are made empty and filled: of a namespace, or a transform."""
    from ultralytics.utils import IterableSimpleNamespace

    if kind in (IterableSimpleNamespace, SimpleNamespace):
        return True
    # importing torchvision takes seconds, and most checkpoints hold nothing of it
    return kind.__module__ in _TRANSFORM_FILES.values() and kind in _transforms().values()


def layer_class(name: str) -> Any:
    """The ``nn.Module`` class behind a name, also where a release before kept it elsewhere; else None."""
    from torch import nn

    name = _MOVED.get(name, name)
    if not name.startswith(LAYERS):
        return None
    module, _, attribute = name.rpartition(".")
    places = [module]
    if module.startswith("ultralytics.nn.modules"):  # one file until 8.0.63; classes have moved between its parts since
        places += ["ultralytics.nn.modules", *(f"ultralytics.nn.modules.{part}" for part in _LAYER_FILES)]
    for place in places:
        try:
            # of layer modules only (``LAYERS``), which are imported to run the model anyway
            layer = getattr(importlib.import_module(place), attribute, None)
        except ImportError:
            continue
        # a class and not what the module happens to import, such as a function that opens files
        if isinstance(layer, type) and issubclass(layer, nn.Module):
            return layer
    return None


@lru_cache(maxsize=1)
def _transforms() -> dict[str, type]:
    """Classes of the transforms that a classifier carries, by every name that a release has stored them under.

    None of them does more than remember its options when it is filled.
    """
    transforms = {}
    for place, current in _TRANSFORM_FILES.items():
        module = importlib.import_module(current)
        for name in _TRANSFORMS:
            if isinstance(kind := getattr(module, name, None), type):
                transforms[f"{place}.{name}"] = kind
    return transforms


def plain_value(name: str) -> Any:
    """Classes and constants besides layers that are plain: namespaces, transforms, types of numbers."""
    import torch
    from numpy import ndarray

    module, _, attribute = name.rpartition(".")
    if name in {"ultralytics.utils.IterableSimpleNamespace", "ultralytics.yolo.utils.IterableSimpleNamespace"}:
        from ultralytics.utils import IterableSimpleNamespace

        return IterableSimpleNamespace
    if name == "types.SimpleNamespace":
        return SimpleNamespace
    if module in _TRANSFORM_FILES:
        return _transforms().get(name)
    if module == "torch" and isinstance(value := getattr(torch, attribute, None), (torch.dtype, torch.layout)):
        return value
    # how tensors name their type in files
    if module == "torch" and attribute.endswith("Storage"):
        return getattr(torch, attribute, None)
    values = {
        "torch.Tensor": torch.Tensor,
        "torch.nn.parameter.Parameter": torch.nn.Parameter,
        "numpy.ndarray": ndarray,
    }
    return values.get(name)


def functions() -> dict[str, Callable[..., Any]]:
    """What a checkpoint may call, by the names that it is stored under."""
    import numpy as np
    import torch
    from torch import _utils as rebuild

    # asked for by what numpy does: the functions' places differ between numpy 1 and 2
    scalar = np.float64(0).__reduce__()[0]
    array = np.zeros(1).__reduce__()[0]
    by_name: dict[str, Any] = {
        "collections.OrderedDict": collections.OrderedDict,
        "collections.Counter": collections.Counter,
        "collections.defaultdict": _default_dict,
        "builtins.set": set,
        "builtins.frozenset": frozenset,
        "builtins.slice": slice,
        "builtins.complex": complex,
        "builtins.bytearray": bytearray,
        "builtins.getattr": _attribute,
        "_codecs.encode": _encode,
        "copyreg._reconstructor": _reconstruct,
        "datetime.datetime": _text,
        "torch.Size": torch.Size,
        "torch.device": torch.device,
        "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
        "numpy.dtype": np.dtype,
        "torchvision.transforms.functional.InterpolationMode": _interpolation,
        **{f"torch._utils.{f.__name__}": f for f in (rebuild._rebuild_tensor, rebuild._rebuild_tensor_v2,
                                                      rebuild._rebuild_tensor_v3, rebuild._rebuild_parameter)},
    }  # fmt: skip
    # numpy 1 wrote the first, numpy 2 writes the second; either reads both here
    for core in ("numpy.core", "numpy._core"):
        by_name[f"{core}.multiarray.scalar"] = scalar
        by_name[f"{core}.multiarray._reconstruct"] = array
    # Python 3.13 stores them under the second
    for module in ("pathlib", "pathlib._local"):
        by_name |= {
            f"{module}.{kind}": _path for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
        }
    return by_name


def _path(*parts: str) -> str:
    """A path as text: paths of another system cannot be made here."""
    return os.path.join(*map(str, parts)) if parts else ""


def _text(*parts: Any) -> str:
    return " ".join(map(repr, parts))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # how protocol 2 stores bytes; no other encoding is ever written
    return text.encode("latin1" if encoding == "latin1" else "utf-8")


def _default_dict(factory: Any = None, *pairs: Any) -> dict[Any, Any]:
    # of another factory nothing could be known; a mapping without default reads alike
    return collections.defaultdict(factory if factory in (list, dict, int, float, set) else None, *pairs)


def _reconstruct(kind: Any, base: Any, state: Any) -> Any:
    """Of pickle protocol 0 and 1: an empty object."""
    return make(kind, ())


def _rebuild_from_type(function: Any, kind: Any, arguments: tuple[Any, ...], state: Any) -> Any:
    from torch import _utils as rebuild

    # the call that is wrapped must be on the list itself, or the wrapper would call anything
    if function not in (rebuild._rebuild_tensor_v2, rebuild._rebuild_tensor_v3, rebuild._rebuild_parameter):
        raise RefusedError(f"it rebuilds a tensor with {getattr(function, '__qualname__', function)}")
    return function(*arguments)


def _interpolation(value: Any) -> enum.Enum:
    from torchvision.transforms.functional import InterpolationMode

    found: enum.Enum = InterpolationMode(value)
    return found


def _attribute(owner: Any, name: str) -> Any:
    """A method that a layer was stored with (``Detect.forward`` in heads, ``forward_fuse``), or an enum's member."""
    from torch import nn

    if isinstance(owner, Record) or is_record(owner):
        return Record(owner, name)
    if owner is _interpolation:
        return _interpolation(name.lower().replace("_", "-"))
    # forward methods alone: getattr on a layer could otherwise reach any function of its class
    if isinstance(owner, type) and issubclass(owner, nn.Module) and name.startswith("forward"):
        return getattr(owner, name)
    if isinstance(owner, nn.Module) and name in {"forward", "forward_fuse"}:
        return getattr(type(owner), name).__get__(owner)
    raise RefusedError(f"it asks for attribute '{name}' of a {type(owner).__name__}")
