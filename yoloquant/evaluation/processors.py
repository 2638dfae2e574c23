"""Other processors than this one: what they are called, and how a process is started on them.

qemu-user runs a single program of another processor. It computes what that processor computes, bit by bit, and says
nothing about how fast: its x86 has AVX2 and no VNNI, like most Intel processors made before 2021 and AMD's before
Zen 4; its aarch64 is a Cortex-A76 (Raspberry Pi 5), whose Python and runtimes lie in a root that
``tools/make_device_root.py`` makes. A runtime whose kernels take an upper limit needs no emulation on x86.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import TargetError, UsageError
from ..runtime.backends import Backend, backend_class, backend_names
from ..runtime.device.processors import WITHOUT_VNNI, has_vnni

NATIVE = "native"
AVX2, AARCH64 = "avx2", "aarch64"
PROCESSORS = {
    NATIVE: "this machine's own",
    AVX2: "x86-64 without VNNI: Intel before 2021, AMD before Zen 4",
    AARCH64: "64-bit Arm: Raspberry Pi, Jetson",
}
ROOT_VARIABLE = "YOLOQUANT_AARCH64_ROOT"
DESCRIPTION = "device.json"
EMULATED = "accuracy only: emulated, so its time says nothing"


@dataclass(frozen=True)
class Launch:
    """How to start Python on a processor.

    Attributes:
        processor: Its name.
        command: What stands in front of Python's own arguments.
        environment: Variables on top of this process's.
        path: Folders for ``PYTHONPATH``.
        emulated: Whether an emulator runs it, so that its time says nothing.
    """

    processor: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    emulated: bool = True

    def variables(self, *folders: str | os.PathLike[str]) -> dict[str, str]:
        """The whole environment, with more folders to import from in front."""
        places = os.pathsep.join([*(os.fspath(f) for f in folders), *self.path])
        # PYTHONNOUSERSITE: a user's own packages are made for this machine's Python.
        return {**os.environ, **self.environment, "PYTHONPATH": places, "PYTHONNOUSERSITE": "1"}


def parse(names: str | Iterable[str]) -> tuple[str, ...]:
    """Processors by name, each once.

    Raises:
        UsageError: A name is unknown, or none is given.
    """
    parts = names.split(",") if isinstance(names, str) else names
    # Each once, in the order that was given.
    wanted = list(dict.fromkeys(n.strip().lower() for n in parts if n.strip()))
    unknown = [n for n in wanted if n not in PROCESSORS]
    if unknown or not wanted:
        known = "; ".join(f"{name} ({what})" for name, what in PROCESSORS.items())
        raise UsageError(f"cpu={unknown[0] if unknown else ''} is not a processor; there are {known}")
    return tuple(wanted)


def launch(processor: str, backend: str, *, root: str | os.PathLike[str] = "", emulate: bool = False) -> Launch:
    """How a runtime is started on a processor.

    Args:
        processor: One of PROCESSORS.
        backend: The runtime.
        root: The aarch64 root; that of the environment variable YOLOQUANT_AARCH64_ROOT if empty.
        emulate: Emulate even a processor of which this machine is one.

    Raises:
        TargetError: The emulator is missing, the root is missing or incomplete, or the runtime has no wheel in it.
    """
    kind = backend_class(backend) if backend in backend_names() else None
    if kind is None or not kind.any_cpu:
        raise TargetError(f"'{backend}' does not run on a CPU, so there is no verdict for cpu={processor}")
    if processor == NATIVE:
        return Launch(NATIVE, (sys.executable,), path=_own_path(), emulated=False)
    return _aarch64(backend, root) if processor == AARCH64 else _avx2(kind, emulate)


def _avx2(backend: type[Backend], emulate: bool) -> Launch:
    """Without emulation where that is exact: on a processor without VNNI, and where kernels take that as a limit."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise TargetError(f"cpu={AVX2} needs an x86-64 machine, this one is {platform.machine()}; leave it out of cpu=")
    if not emulate and (backend.without_vnni is not None or has_vnni() is False):
        return Launch(AVX2, (sys.executable,), backend.without_vnni or {}, _own_path(), emulated=False)
    # "max" is all that qemu 7.2 emulates: AVX2, and no VNNI.
    command = (_emulator("x86_64"), "-cpu", "max", sys.executable)
    return Launch(AVX2, command, {WITHOUT_VNNI: "1"}, _own_path())


def _aarch64(backend: str, root: str | os.PathLike[str]) -> Launch:
    folder, data = _described(root)
    if backend not in data["runtimes"]:
        raise TargetError(
            f"{backend} does not run in the aarch64 root '{folder}', {', '.join(data['runtimes']) or 'nothing'} does; "
            "make it again with tools/make_device_root.py, or leave aarch64 out of cpu="
        )
    # -L: where qemu looks for that processor's libraries before it looks here.
    command = (_emulator("aarch64"), "-cpu", "cortex-a76", "-L", str(folder), str(folder / data["python"]))
    return Launch(AARCH64, command, path=(str(folder / data["site"]),))


def _described(root: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """The root and what its maker wrote about it, which is there only if it is complete."""
    place = os.fspath(root) or os.environ.get(ROOT_VARIABLE, "")
    how = "make one with: python tools/make_device_root.py root=<folder>"
    if not place:
        raise TargetError(
            f"cpu={AARCH64} needs a root with its Python; name it with cpu_root= or {ROOT_VARIABLE}, or {how}"
        )
    folder = Path(place).resolve()
    try:
        data: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        python, site = folder / str(data["python"]), folder / str(data["site"])
        data["runtimes"] = [str(r) for r in data["runtimes"]]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TargetError(f"'{folder}' is not a complete aarch64 root ({DESCRIPTION}: {exc}); {how}") from exc
    if not (python.exists() and site.is_dir()):
        raise TargetError(f"'{folder}' is not a complete aarch64 root: {python.name} or {site.name} is missing; {how}")
    return folder, data


def _emulator(machine: str) -> str:
    for name in (f"qemu-{machine}-static", f"qemu-{machine}"):
        if found := shutil.which(name):
            return found
    raise TargetError(
        f"qemu-{machine}-static is not installed, so no {machine} processor can be emulated; on Debian or Ubuntu: "
        "apt-get install qemu-user-static"
    )


def _own_path() -> tuple[str, ...]:
    return tuple(p for p in sys.path if p)
