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

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from .checkpoint_names import (
    Record,
    RefusedError,
    functions,
    is_array,
    is_plain,
    is_record,
    layer_class,
    make,
    plain_value,
)


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
        self._functions = functions()

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The layer, function or record behind a name.

        Raises:
            RefusedError: It is none of these.
        """
        module_name = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module_name, module_name)  # of Python 2
        name = f"{module_name}.{global_name}"
        if name in self._functions:
            return self._functions[name]
        found = layer_class(name) or plain_value(name)
        if found is not None:
            return found
        if module_name.split(".")[0] == "ultralytics":
            # a class for each name, since a pickle makes objects of what it finds here
            return type(global_name, (Record,), {"kind": name})
        raise RefusedError(f"it names {name}, which is no layer of PyTorch or Ultralytics", name)

    def get_extension(self, code: int) -> None:
        """Extension codes are never needed."""
        raise RefusedError(f"it uses the pickle extension {code}")

    def load_reduce(self) -> None:
        """Call a function of the list; make a record instead of calling anything else of Ultralytics."""
        arguments = self.stack.pop()
        called = self.stack[-1]
        # by identity: an object may claim to equal anything
        if isinstance(called, Record) or is_record(called) or any(called is f for f in self._functions.values()):
            self.stack[-1] = called(*arguments)
        elif isinstance(called, type) and is_plain(called):
            self.stack[-1] = make(called, arguments)
        else:
            raise RefusedError(f"it calls {getattr(called, '__qualname__', type(called).__name__)}")

    def load_newobj(self) -> None:
        """Make an empty object."""
        arguments = self.stack.pop()
        self.stack[-1] = make(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        """The same, with keyword arguments, which no layer has."""
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = make(self.stack[-1], (*arguments, *keywords.values()))

    def _instantiate(self, klass: Any, arguments: Any) -> None:
        self.append(make(klass, tuple(arguments)))

    def load_build(self) -> None:
        """Fill an object; its state must be a dictionary, so that no property is set."""
        state = self.stack[-1]
        # a pair holds a dictionary and one of slots, which are set by setattr and so by any property of the class
        if isinstance(state, tuple) and not is_array(self.stack[-2]) and not isinstance(self.stack[-2], Record):
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


class _PickleModule:
    """What ``torch.load(pickle_module=...)`` asks of a module."""

    Unpickler: type[SafeUnpickler] = SafeUnpickler

    @classmethod
    def load(cls, file: Any, **options: Any) -> Any:
        """Read one pickle."""
        return cls.Unpickler(file, **options).load()


class _TrustingPickleModule(_PickleModule):
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

    reader: Any = _TrustingPickleModule if trusted else _PickleModule
    # torch's own reader of either format, storages included; only the unpickler is ours
    return torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)


def without_records(module: Any) -> None:
    """Take what is no layer and no plain value off a model, in place: its loss and other objects of training.

    Ultralytics makes them anew when they are needed.
    """
    for layer in module.modules():
        # a list first: attributes go while the loop runs. The loss also where it could be rebuilt: it is of another
        # release
        for name in [n for n, value in vars(layer).items() if n == "criterion" or holds_record(value)]:
            delattr(layer, name)


def holds_record(value: Any) -> bool:
    """Whether plain data have a record somewhere in them."""
    if isinstance(value, dict):
        return any(holds_record(v) for v in value.values())
    if isinstance(value, (list, tuple, set)):
        return any(holds_record(v) for v in value)
    if is_plain(type(value)):
        return holds_record(vars(value))
    return isinstance(value, Record) or is_record(value)
