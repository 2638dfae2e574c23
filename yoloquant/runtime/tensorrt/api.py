"""What a TensorRT release can do, told by its own attributes; and a logger that remembers what it said.

Which release has what was read from the sources of NVIDIA's Python bindings (``python/src/infer/pyCore.cpp`` of
github.com/NVIDIA/TensorRT, 8.5 and 10) and from the lists of removed APIs in NVIDIA's migration guides (8.x to 10.x,
10.x to 11.x).
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from typing import Any

from ..errors import MissingRuntimeError, TargetError

logger = logging.getLogger(__name__)

OLDEST = (8, 4)  # JetPack 5.0; before it there were no memory pools
MODULE = "tensorrt"
FIX = (
    "on a Jetson it comes with JetPack (package python3-libnvinfer; a virtual environment needs "
    "--system-site-packages to see it); elsewhere: pip install tensorrt"
)
_KEPT_LINES = 400


@dataclass(frozen=True)
class TensorRT:
    """A TensorRT release.

    Attributes:
        module: The Python module.
        version: What it calls itself.
    """

    module: Any
    version: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its version as numbers."""
        return tuple(int(part) for part in self.version.split(".") if part.isdigit())

    @property
    def strongly_typed(self) -> bool:
        """Whether types come from the network alone: no INT8 and FP16 flags, no calibrators (TensorRT 11)."""
        return not hasattr(self.module.BuilderFlag, "INT8")

    @property
    def network_flags(self) -> int:
        """Flags of ``Builder.create_network``.

        Before 10 a network has an explicit batch dimension only if the flag says so; in 10 that is the only kind, and
        in 11 every network is strongly typed.
        """
        flags = self.module.NetworkDefinitionCreationFlag
        if self.strongly_typed:
            return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
        return 1 << int(flags.EXPLICIT_BATCH) if self.numbers < (10,) else 0

    def logger(self) -> Any:
        """A TensorRT logger with a list of ``lines``: errors, warnings and placements; all go to ``logging``.

        TensorRT's own plugins are registered with it, so that models and engines with NMS in them are understood.
        """
        made = _logger(self.module)
        if hasattr(self.module, "init_libnvinfer_plugins"):
            self.module.init_libnvinfer_plugins(made, "")
        return made


def is_installed() -> bool:
    """Whether TensorRT is installed; imports nothing."""
    return importlib.util.find_spec(MODULE) is not None


def load() -> TensorRT:
    """Import TensorRT.

    Raises:
        MissingRuntimeError: It is not installed.
        TargetError: Its libraries cannot be loaded, or it is too old.
    """
    if not is_installed():
        raise MissingRuntimeError("tensorrt", MODULE, FIX)
    try:
        module = importlib.import_module(MODULE)
    except (ImportError, OSError) as exc:
        raise TargetError(f"TensorRT is installed but cannot be loaded: {exc}; {FIX}") from exc
    return of(module)


def of(module: Any) -> TensorRT:
    """Describe an imported module.

    Raises:
        TargetError: It is too old, or no TensorRT at all.
    """
    found = TensorRT(module, str(getattr(module, "__version__", "")))
    if not hasattr(module, "Builder"):
        raise TargetError(f"the module {module.__name__} is no TensorRT (it has no Builder); {FIX}")
    if not hasattr(module, "MemoryPoolType"):
        wanted = ".".join(map(str, OLDEST))
        raise TargetError(f"TensorRT {found.version} is too old; {wanted} and later build engines here: update JetPack")
    return found


def _logger(trt: Any) -> Any:
    """Every release lets Python subclass ``ILogger``, whose own ``__init__`` must be called."""
    levels = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING}

    # made inside a function: there is no base class to derive from until TensorRT is imported
    class Logger(trt.ILogger):  # type: ignore[misc]  # an untyped binding
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity.name, logging.DEBUG)
            placement = "[DlaLayer]" in message or "[GpuLayer]" in message
            if level > logging.DEBUG or placement:
                self.lines.append(f"[{severity.name}] {message}")
                # a verbose build says far more than this, and the last lines are what explains a failure
                del self.lines[:-_KEPT_LINES]
            # TensorRT warns of much that is usual; its errors stay errors
            logger.log(min(level, logging.INFO) if level < logging.ERROR else level, "%s", message)

    return Logger()


def complaints(trt_logger: Any, count: int = 3) -> str:
    """The last errors that a logger saw, for an exception's text; empty if there were none."""
    errors = [line for line in trt_logger.lines if "ERROR]" in line]
    return "; ".join(errors[-count:])
