"""The devices that bundles are made for: those that targets declare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .. import targets
from ..errors import UsageError
from ..runtime.core.nearest import closest
from ..targets.base import Device, Target


@dataclass(frozen=True)
class BundleDevice:
    """A device, and the target that serves it.

    Attributes:
        device: What the target says about the device.
        target: The target, in the variant that was asked for.
    """

    device: Device
    target: Target

    @property
    def name(self) -> str:
        """What people call the device."""
        return self.device.name

    @property
    def wanted(self) -> str:
        """The target as ``targets.get`` takes it."""
        return self.target.wanted

    @property
    def folder(self) -> str:
        """What its bundle's folder is called behind the model's name: bundles of two variants lie beside each other."""
        variant = self.wanted.partition(":")[2]
        return self.name if variant in ("", self.device.variant) else f"{self.name}-{variant}"

    @property
    def backend(self) -> str:
        """The backend's name in the device runtime."""
        backend = self.target.device_backend()
        # a target of another package brings its backend's class
        return backend if isinstance(backend, str) else backend.name


def all_devices() -> dict[str, BundleDevice]:
    """Every device of every target, by name; of a device that several targets serve, the first target's."""
    devices: dict[str, BundleDevice] = {}
    for name in targets.names():
        target = targets.get(name)
        for device in target.devices:
            # the registry's order decides, so that a later target takes no device away
            devices.setdefault(device.name, BundleDevice(device, target))
    return devices


def resolve(names: str | Iterable[str]) -> tuple[BundleDevice, ...]:
    """Devices by name, each variant once; a target's name stands for its usual device.

    Args:
        names: Names, separated by commas if it is one text; ``all`` for every device whose target is installed.

    Raises:
        UsageError: A name is unknown, or none is given.
    """
    requested = [n.strip().lower() for n in (names.split(",") if isinstance(names, str) else names) if n.strip()]
    if not requested:
        raise UsageError(f"name at least one device: {', '.join(all_devices())}, or all")
    chosen: dict[str, BundleDevice] = {}
    for name in requested:
        for device in _installed() if name == "all" else (device_named(name),):
            chosen.setdefault(device.folder, device)
    return tuple(chosen.values())


def _installed() -> tuple[BundleDevice, ...]:
    # a target whose hardware or use only the user knows is left out of "all"
    available = {target.name for target in targets.available() if target.in_all}
    return tuple(device for device in all_devices().values() if device.target.name in available)


def device_named(name: str) -> BundleDevice:
    """One device, by its own name or its target's; behind a colon stands a variant, as in ``coral:uint8``.

    Raises:
        UsageError: There is none of that name.
    """
    # without the variant, which is the target's business
    plain, known = name.strip().lower().partition(":")[0], all_devices()
    if plain not in {*targets.names(), *targets.devices()}:
        near = closest(plain, known)
        hint = f" (did you mean '{near}'?)" if near else ""
        raise UsageError(f"there is no bundle for '{name}'{hint}; there are bundles for {', '.join(known)}")
    target, device = targets.device(name)
    return BundleDevice(device, target)
