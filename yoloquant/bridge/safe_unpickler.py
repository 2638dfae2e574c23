"""Read a pickled checkpoint without running code from it, whichever Ultralytics release wrote it.

A checkpoint is a pickle: a program that names classes and functions and calls them. This reader knows three kinds of
names. Layers of torch and Ultralytics are made empty (``__new__``, never ``__init__``) and filled with their stored
attributes. A few functions that rebuild tensors and containers may be called. Every other class of Ultralytics, such as
the loss or the options of its time, becomes a ``Record``: plain data that remembers the name. Anything else is refused.

PyTorch's own ``weights_only`` reader is not enough for this: it calls the constructor of any class that it was told
about, and the constructor of an Ultralytics model evaluates text from its yaml; it also cannot read the format that
PyTorch wrote before 1.6.
"""

from __future__ import annotations

import collections
import enum
import importlib
import os
import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

LAYERS = ("torch.nn.", "ultralytics.nn.modules", "ultralytics.nn.tasks", "torchvision.ops.", "torchvision.models.")
_LAYER_FILES = ("conv", "block", "head", "transformer", "utils", "activation")
_MOVED = {  # where classes lie that older releases kept elsewhere, or under another name
    "ultralytics.nn.modules.block.Silence": "torch.nn.modules.linear.Identity",
    "ultralytics.nn.tasks.YOLOv10DetectionModel": "ultralytics.nn.tasks.DetectionModel",
}
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


class SafeUnpickler(pickle._Unpickler):  # the C implementation cannot be told which calls are allowed
    """An unpickler for checkpoints; see the module's description.

    Args:
        file: Binary stream of one pickle.
        encoding: Of strings that Python 2 wrote.
    """

    stack: list[Any]
    append: Callable[[Any], None]

    def __init__(self, file: Any, *, encoding: str = "utf-8", **_: Any) -> None:
        super().__init__(file, encoding=encoding)  # type: ignore[call-arg]
        self._functions = _functions()

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The layer, function or record behind a name.

        Raises:
            RefusedError: It is none of these.
        """
        module_name = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module_name, module_name)  # of Python 2
        name = f"{module_name}.{global_name}"
        if name in self._functions:
            return self._functions[name]
        found = _layer(name) or _value(name)
        if found is not None:
            return found
        if module_name.split(".")[0] == "ultralytics":
            return type(global_name, (Record,), {"kind": name})
        raise RefusedError(f"it names {name}, which is no layer of PyTorch or Ultralytics", name)

    def get_extension(self, code: int) -> None:
        """Extension codes are never needed."""
        raise RefusedError(f"it uses the pickle extension {code}")

    def load_reduce(self) -> None:
        """Call a function of the list; make a record instead of calling anything else of Ultralytics."""
        arguments = self.stack.pop()
        called = self.stack[-1]
        if isinstance(called, Record) or _is_record(called) or any(called is f for f in self._functions.values()):
            self.stack[-1] = called(*arguments)
        elif isinstance(called, type) and called in _plain_classes():
            self.stack[-1] = _make(called, arguments)
        else:
            raise RefusedError(f"it calls {getattr(called, '__qualname__', type(called).__name__)}")

    def load_newobj(self) -> None:
        """Make an empty object."""
        arguments = self.stack.pop()
        self.stack[-1] = _make(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        """The same, with keyword arguments, which no layer has."""
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = _make(self.stack[-1], (*arguments, *keywords.values()))

    def _instantiate(self, klass: Any, arguments: Any) -> None:
        self.append(_make(klass, tuple(arguments)))

    def load_build(self) -> None:
        """Fill an object; its state must be a dictionary, so that no property is set."""
        state = self.stack[-1]
        if isinstance(state, tuple) and not _is_array(self.stack[-2]) and not isinstance(self.stack[-2], Record):
            raise RefusedError(f"it sets slots of a {type(self.stack[-2]).__name__}")
        super().load_build()  # type: ignore[misc]

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
    }


class TrustingUnpickler(SafeUnpickler):
    """The same for files that may run code: names that are not on the list are imported, and everything is called."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The object behind a name, wherever it lies."""
        try:
            return super().find_class(module_name, global_name)
        except RefusedError:
            return pickle._Unpickler.find_class(self, module_name, global_name)

    _instantiate = pickle._Unpickler._instantiate  # type: ignore[attr-defined]
    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch}


def _make(kind: Any, arguments: tuple[Any, ...]) -> Any:
    from torch import nn

    if _is_record(kind):
        return kind(*arguments)
    known = isinstance(kind, type) and (issubclass(kind, nn.Module) or kind in _plain_classes())
    if not known or arguments:
        raise RefusedError(f"it makes {getattr(kind, '__name__', kind)} from {len(arguments)} arguments")
    return kind.__new__(kind)


def _is_record(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Record)


def _is_array(value: Any) -> bool:
    import numpy as np

    return isinstance(value, (np.ndarray, np.dtype))


def _plain_classes() -> tuple[type, ...]:
    from ultralytics.utils import IterableSimpleNamespace

    return (IterableSimpleNamespace, SimpleNamespace, *_transforms().values())


def _layer(name: str) -> Any:
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
            layer = getattr(importlib.import_module(place), attribute, None)
        except ImportError:
            continue
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


def _value(name: str) -> Any:
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
    if module == "torch" and attribute.endswith("Storage"):
        return getattr(torch, attribute, None)
    values = {
        "torch.Tensor": torch.Tensor,
        "torch.nn.parameter.Parameter": torch.nn.Parameter,
        "numpy.ndarray": ndarray,
    }
    return values.get(name)


def _functions() -> dict[str, Callable[..., Any]]:
    """What a checkpoint may call, by the names that it is stored under."""
    import numpy as np
    import torch
    from torch import _utils as rebuild

    scalar = np.float64(0).__reduce__()[0]
    array = np.zeros(1).__reduce__()[0]
    functions: dict[str, Any] = {
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
    for core in ("numpy.core", "numpy._core"):
        functions[f"{core}.multiarray.scalar"] = scalar
        functions[f"{core}.multiarray._reconstruct"] = array
    for module in ("pathlib", "pathlib._local"):
        functions |= {
            f"{module}.{kind}": _path for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
        }
    return functions


def _path(*parts: str) -> str:
    """A path as text: paths of another system cannot be made here."""
    return os.path.join(*map(str, parts)) if parts else ""


def _text(*parts: Any) -> str:
    return " ".join(map(repr, parts))


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "utf-8")


def _default_dict(factory: Any = None, *pairs: Any) -> dict[Any, Any]:
    return collections.defaultdict(factory if factory in (list, dict, int, float, set) else None, *pairs)


def _reconstruct(kind: Any, base: Any, state: Any) -> Any:
    """Of pickle protocol 0 and 1: an empty object."""
    return _make(kind, ())


def _rebuild_from_type(function: Any, kind: Any, arguments: tuple[Any, ...], state: Any) -> Any:
    from torch import _utils as rebuild

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

    if isinstance(owner, Record) or _is_record(owner):
        return Record(owner, name)
    if owner is _interpolation:
        return _interpolation(name.lower().replace("_", "-"))
    if isinstance(owner, type) and issubclass(owner, nn.Module) and name.startswith("forward"):
        return getattr(owner, name)
    if isinstance(owner, nn.Module) and name in {"forward", "forward_fuse"}:
        return getattr(type(owner), name).__get__(owner)
    raise RefusedError(f"it asks for attribute '{name}' of a {type(owner).__name__}")


class _Reader:
    """What ``torch.load(pickle_module=...)`` asks of a module."""

    Unpickler: type[SafeUnpickler] = SafeUnpickler

    @classmethod
    def load(cls, file: Any, **options: Any) -> Any:
        """Read one pickle."""
        return cls.Unpickler(file, **options).load()


class _TrustingReader(_Reader):
    Unpickler = TrustingUnpickler


def read(path: Path, *, trusted: bool = False) -> Any:
    """Read a checkpoint in either of PyTorch's formats.

    Args:
        path: What ``torch.save`` wrote.
        trusted: Run code from the file where it asks for that.

    Returns:
        Its content, on the CPU; ``Record`` objects where classes are not rebuilt.

    Raises:
        RefusedError: It names something that is not on the list.
        Exception: It is damaged; any type.
    """
    import torch

    reader: Any = _TrustingReader if trusted else _Reader
    return torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)


def without_records(module: Any) -> None:
    """Take what is no layer and no plain value off a model, in place: its loss and other objects of training.

    Ultralytics makes them anew when they are needed.
    """
    for layer in module.modules():
        for name in [n for n, value in vars(layer).items() if n == "criterion" or holds_record(value)]:
            delattr(layer, name)


def holds_record(value: Any) -> bool:
    """Whether plain data have a record somewhere in them."""
    if isinstance(value, dict):
        return any(holds_record(v) for v in value.values())
    if isinstance(value, (list, tuple, set)):
        return any(holds_record(v) for v in value)
    if isinstance(value, _plain_classes()):
        return holds_record(vars(value))
    return isinstance(value, Record) or _is_record(value)
