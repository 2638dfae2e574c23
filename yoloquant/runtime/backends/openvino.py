"""OpenVINO on Intel CPUs, GPUs and NPUs."""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..core.model_info import ModelInfo
from ..device.environment import variable
from ..errors import ArtifactError, MissingRuntimeError, TargetError, UsageError
from .base import Backend, BackendOptions

logger = logging.getLogger(__name__)

HINTS = ("latency", "throughput")
CAPABILITIES = {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}
"""What a device must list among its capabilities to compute in a precision."""
PINNING = "ENABLE_CPU_PINNING"
"""Switched off: every network of a process would be pinned to the same cores, where they wait for one another, and a
pinned thread cannot make way for the threads that read and draw."""

_lock = threading.Lock()
_core: Any = None


class OpenVinoBackend(Backend):
    """A compiled IR.

    Args:
        path: The ``.xml`` file, or the folder that holds it.
        info: The model that it holds.
        options: How it is run: ``threads``, ``device`` (``CPU``, ``GPU``, ``NPU``, ``AUTO``; the CPU if empty),
            ``hint``, ``precision`` (left to the device if it cannot compute in it).

    Raises:
        MissingRuntimeError: OpenVINO is not installed.
        ArtifactError: There is no IR, or it holds another model.
        TargetError: There is no such device, or it cannot run the model.
        UsageError: The hint or precision is unknown.
    """

    name = "openvino"
    any_cpu = True
    without_vnni = MappingProxyType({"ONEDNN_MAX_CPU_ISA": "AVX2"})

    def __init__(self, path: Path, info: ModelInfo, options: BackendOptions) -> None:
        self._library = import_openvino()
        core, device = shared_core(), (options.device or "CPU").upper()
        config = _config(core, device, options)
        xml = find_xml(path)
        try:
            self.compiled = core.compile_model(_of_one_image(core, xml), device, config)
            # one request, used again: making one allocates its outputs
            self._request = self.compiled.create_infer_request()
        except RuntimeError as exc:
            raise TargetError(f"OpenVINO cannot load '{path}' for device {device}: {exc}") from exc
        self.info, self.layout = info, info.layout
        port = self.compiled.inputs[0]
        self.input_shape = (1, info.channels, *info.imgsz)
        self.input_dtype = np.dtype(port.get_element_type().to_dtype())
        shape = tuple(port.get_shape()) if port.get_partial_shape().is_static else (0,)
        self.batch = int(shape[0])
        if shape[1:] != self.input_shape[1:] or self.input_dtype.kind != "f":
            raise ArtifactError(
                f"'{path}' takes {self.input_dtype} {port.get_partial_shape()}, its description says imgsz={info.imgsz}"
            )
        self._count = len(self.compiled.outputs)

    @classmethod
    def on_cpu(cls, path: Path, device: str) -> bool:
        """See ``Backend.on_cpu``."""
        return (device or "CPU").upper() == "CPU"

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network; see ``Backend.run``."""
        try:
            # no copies: the caller keeps the tensor until the results are decoded
            self._request.infer([self.filled(tensor)], share_inputs=True, share_outputs=True)
        except RuntimeError as exc:
            raise TargetError(f"OpenVINO failed: {exc}") from exc
        outputs = (self._request.get_output_tensor(i).data[: len(tensor)] for i in range(self._count))
        # an IR of another origin may return another float type
        return tuple(o if o.dtype == np.float32 else o.astype(np.float32) for o in outputs)

    def executed(self) -> list[tuple[str, str, str]]:
        """Type, name and precision of every operation that really runs."""
        model = self.compiled.get_runtime_model()
        infos = [(o.get_friendly_name(), o.get_rt_info()) for o in model.get_ordered_ops()]
        return [(str(i["layerType"].value), name, str(i["runtimePrecision"].value)) for name, i in infos]

    def close(self) -> None:
        """Free the compiled model."""
        del self._request, self.compiled

    @property
    def version(self) -> str:
        """Version of OpenVINO."""
        return str(self._library.get_version())


def import_openvino() -> Any:
    """Import OpenVINO without telemetry.

    Raises:
        MissingRuntimeError: It is not installed.
    """
    try:
        with unreported():
            import openvino
    except ImportError as exc:
        raise MissingRuntimeError("openvino", "openvino", "install it with: pip install openvino") from exc
    return openvino


def shared_core() -> Any:
    """The one ``Core`` of this process.

    The CPU plugin of every Core gives the thread that loads it a stack for signal handlers, and unmaps it at its end
    (openvinotoolkit/openvino, pull request 11894). Of several that do not end in the reverse order one stays in use
    after it was unmapped, and the next Ctrl-C is a segmentation fault. So there is one, and it stays.

    Raises:
        MissingRuntimeError: OpenVINO is not installed.
    """
    global _core
    library = import_openvino()
    with _lock:
        if _core is None:
            _core = library.Core()
    return _core


def unreported() -> AbstractContextManager[None]:
    """Keep OpenVINO's telemetry from forking and calling home; the variable is its own switch for that."""
    return variable("CI", "true")


def find_xml(path: Path) -> Path:
    """The ``.xml`` of an IR, given itself or its folder.

    Raises:
        ArtifactError: There is none.
    """
    files = sorted(path.glob("*.xml")) if path.is_dir() else [path] * path.is_file()
    if not files:
        raise ArtifactError(f"'{path}' holds no OpenVINO .xml; export it again")
    return files[0]


def _of_one_image(core: Any, xml: Path) -> Any:
    """What is compiled: an IR, of one image where it leaves the number open.

    With open shapes some processors compute another graph, or fail (openvinotoolkit/openvino, issue 37577).
    """
    model = core.read_model(str(xml))
    shape = model.inputs[0].get_partial_shape()
    if not shape.is_dynamic:
        return str(xml)
    shape[0] = 1
    model.reshape(shape)
    return model


def _config(core: Any, device: str, options: BackendOptions) -> dict[str, Any]:
    if options.hint not in HINTS:
        raise UsageError(f"hint='{options.hint}' is unknown; choose from {', '.join(HINTS)}")
    if options.precision not in {"", *CAPABILITIES}:
        raise UsageError(f"precision='{options.precision}' is unknown; choose from {', '.join(CAPABILITIES)}")
    config: dict[str, Any] = {"PERFORMANCE_HINT": options.hint.upper()}
    single = _single_device(core, device)
    # other devices refuse the key
    if options.threads and single == "CPU":
        config["INFERENCE_NUM_THREADS"] = options.threads
    if single == "CPU" and PINNING in core.get_property(single, "SUPPORTED_PROPERTIES"):
        config[PINNING] = False
    if single == "CPU" and not options.optimize:
        config["LP_TRANSFORMS_MODE"] = "NO"  # FakeQuantize stays an operation, computed in float
    if options.precision and single:
        # a hint that a device cannot follow is an error when it compiles
        if CAPABILITIES[options.precision] in core.get_property(single, "OPTIMIZATION_CAPABILITIES"):
            config["INFERENCE_PRECISION_HINT"] = options.precision
        else:
            logger.info("device %s does not compute in %s; it chooses its own precision", single, options.precision)
    return config if single else {**config, **_for_several(core, device, options.precision)}


def _for_several(core: Any, device: str, precision: str) -> dict[str, Any]:
    """What keeps a choice among several devices from changing what is computed.

    The precision is given to each device that has it, since AUTO itself takes none. AUTO also must not begin on the CPU
    while it loads the device that it will stay on: what is verified then is not what runs afterwards.
    """
    able = [d for d in core.available_devices if precision and CAPABILITIES[precision] in _abilities(core, d)]
    config: dict[str, Any] = {"DEVICE_PROPERTIES": {d: {"INFERENCE_PRECISION_HINT": precision} for d in able}}
    if device.split(":")[0] == "AUTO":
        config["ENABLE_STARTUP_FALLBACK"] = False
    return config if able else {k: v for k, v in config.items() if k != "DEVICE_PROPERTIES"}


def _abilities(core: Any, device: str) -> list[str]:
    return list(core.get_property(device, "OPTIMIZATION_CAPABILITIES"))


def _single_device(core: Any, device: str) -> str:
    """The device if it is a single one, empty if OpenVINO is to choose among several."""
    if device.split(":")[0] in {"AUTO", "MULTI", "HETERO"}:
        return ""
    available = core.available_devices
    if device not in available and not any(a.split(".")[0] == device for a in available):
        raise TargetError(
            f"OpenVINO finds no device '{device}' on this machine; it finds {', '.join(available) or 'none'}; "
            "choose one of them, or install the driver of the device"
        )
    return device
