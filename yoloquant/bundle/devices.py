"""The devices that bundles are made for: which target serves each, and what must be installed there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..errors import UsageError
from ..runtime.core.bundle_manifest import Requirement
from ..runtime.core.nearest import closest

# The lowest versions in which a bundle of yolo11n was seen to verify (x86-64, Python 3.11); TensorRT's is JetPack 5's.
# tflite-runtime 2.14 needs numpy below 2.
_LITERT = Requirement("ai_edge_litert", "ai-edge-litert", "1.2.0")
_TFLITE = Requirement("tflite_runtime", "tflite-runtime", "2.14.0")
_OPENVINO = Requirement("openvino", "openvino", "2023.1.0")
_ONNXRUNTIME = Requirement("onnxruntime", "onnxruntime", "1.15.0")
_TENSORRT = Requirement("tensorrt", "tensorrt", "8.5.0")


@dataclass(frozen=True)
class Device:
    """A device, or a family of devices.

    Attributes:
        name: What people call it.
        target: The target that serves it.
        backend: The runtime's name in the device runtime.
        title: Heading of its README.
        requires: Libraries that run the model, the preferred one first; one is enough.
        wheels: Further lines of requirements.txt.
        variant: Of the target, such as ``uint8``; empty for its default.
    """

    name: str
    target: str
    backend: str
    title: str
    requires: tuple[Requirement, ...]
    wheels: tuple[str, ...] = ()
    variant: str = ""

    @property
    def wanted(self) -> str:
        """The target as ``targets.get`` takes it."""
        return f"{self.target}:{self.variant}" if self.variant else self.target

    @property
    def requirements(self) -> str:
        """The content of requirements.txt."""
        first = [r for r in self.requires[:1] if r.package != "tensorrt"]  # which comes with JetPack
        own = [f"{r.package}>={r.minimum}" for r in first]
        if first == [_LITERT]:  # it has no wheels for older Pythons, its predecessor has
            own = [f'{own[0]}; python_version >= "3.9"']
            own.append(f'{_TFLITE.package}>={_TFLITE.minimum}; python_version < "3.9"')
        return "\n".join(["numpy", "opencv-python-headless", *own, *self.wheels]) + "\n"


DEVICES = {
    device.name: device
    for device in (
        Device("jetson", "tensorrt", "tensorrt", "NVIDIA Jetson (TensorRT)", (_TENSORRT,), ("pycuda>=2022.1",)),
        Device("coral", "edgetpu", "litert", "Coral Edge TPU (LiteRT)", (_LITERT, _TFLITE)),
        Device("raspberrypi", "litert", "litert", "Raspberry Pi (LiteRT)", (_LITERT, _TFLITE)),
        Device("android", "litert", "litert", "Android (LiteRT)", (_LITERT, _TFLITE)),
        Device("intel", "openvino", "openvino", "Intel CPU, GPU and NPU (OpenVINO)", (_OPENVINO,)),
        Device("onnx", "onnxruntime", "onnxruntime", "Any CPU (ONNX Runtime)", (_ONNXRUNTIME,)),
    )
}
_PREFERRED = {"litert": "raspberrypi"}  # of the devices that one target serves


def resolve(names: str | Iterable[str]) -> tuple[Device, ...]:
    """Devices by name, each once; a target's name stands for its device.

    Args:
        names: Names, separated by commas if it is one text; ``all`` for every device whose target is installed.

    Raises:
        UsageError: A name is unknown, or none is given.
    """
    wanted = [n.strip().lower() for n in (names.split(",") if isinstance(names, str) else names) if n.strip()]
    if not wanted:
        raise UsageError(f"name at least one device: {', '.join(DEVICES)}, or all")
    found: dict[str, Device] = {}
    for name in wanted:
        for device in _installed() if name == "all" else (device_named(name),):
            found.setdefault(device.name, device)
    return tuple(found.values())


def _installed() -> Iterator[Device]:
    from .. import targets

    available = {target.name for target in targets.available()}
    return (device for device in DEVICES.values() if device.target in available)


def device_named(name: str) -> Device:
    """One device, by its own name or its target's; behind a colon stands a variant, as in ``coral:uint8``.

    Raises:
        UsageError: There is none of that name.
    """
    key, _, variant = name.strip().lower().partition(":")
    by_target = {device.target: device.name for device in DEVICES.values()} | {"cpu": "onnx"} | _PREFERRED
    key = by_target.get(key, key)
    if key not in DEVICES:
        near = closest(key, DEVICES)
        hint = f" (did you mean '{near}'?)" if near else ""
        raise UsageError(f"there is no bundle for '{name}'{hint}; there are bundles for {', '.join(DEVICES)}")
    return replace(DEVICES[key], variant=variant) if variant else DEVICES[key]
