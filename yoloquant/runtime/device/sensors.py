"""What the platform tells about a process and the machine: time, memory, temperature, power.

Nothing here needs a package. psutil is asked for memory where there is no ``/proc``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

THERMAL = Path("/sys/class/thermal")
POWERCAP = Path("/sys/class/powercap")
CPUFREQ = Path("/sys/devices/system/cpu")
PROC_SELF = Path("/proc/self")
_PAGE = "VmRSS"
_PEAK = "VmHWM"
_JOIN_S = 2.0


def memory(status: Path = PROC_SELF / "status") -> tuple[float | None, float | None]:
    """Resident memory of this process now and at its peak, in MB (10^6 bytes); None where it cannot be known."""
    try:
        text = status.read_text(encoding="ascii", errors="replace")
    except OSError:
        return _psutil_memory()
    # The kernel's kB are 1024 bytes.
    sizes = {m[1]: int(m[2]) * 1024 / 1e6 for m in re.finditer(r"^(VmRSS|VmHWM):\s+(\d+) kB", text, re.M)}
    return sizes.get(_PAGE), sizes.get(_PEAK)


def _psutil_memory() -> tuple[float | None, float | None]:
    try:
        import psutil  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return None, None
    facts = psutil.Process().memory_info()
    # psutil knows a peak on Windows alone.
    return facts.rss / 1e6, getattr(facts, "peak_wset", 0) / 1e6 or None


def load_average() -> float | None:
    """Processes that wanted a core in the last minute; None where it cannot be known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def governors(root: Path = CPUFREQ) -> tuple[str, ...]:
    """How the kernel chooses the cores' clock, each word once; empty where it cannot be known."""
    return tuple(sorted({text for p in root.glob("cpu[0-9]*/cpufreq/scaling_governor") if (text := _text(p))}))


def temperatures(root: Path = THERMAL) -> dict[str, float]:
    """Degrees Celsius of every thermal zone, by its type (``cpu-thermal``, ``x86_pkg_temp``, ``GPU-therm`` ...)."""
    temperatures: dict[str, float] = {}
    for zone in sorted(root.glob("thermal_zone*")):
        text = _text(zone / "temp")
        kind = _text(zone / "type") or zone.name
        if re.match(r"-?\d+$", text):
            degrees = int(text) / 1e3  # kernel documentation, sysfs-class-thermal: millidegrees
            if -50 < degrees < 200:  # an absent sensor gives nonsense
                temperatures[kind if kind not in temperatures else f"{kind} ({zone.name})"] = degrees
    return temperatures


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # a zone that is switched off cannot be read, and RAPL often only by root
        return ""


class Rapl:
    """Energy that the processor packages have used, from the kernel's powercap tree.

    Args:
        root: Its place.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self._zones: list[tuple[Path, int]] = []
        for zone in sorted(root.glob("intel-rapl:[0-9]*")):  # "intel-rapl:0:0" lies within "intel-rapl:0"
            if zone.name.count(":") == 1 and _text(zone / "energy_uj").isdigit():
                limit = _text(zone / "max_energy_range_uj")
                self._zones.append((zone / "energy_uj", int(limit) if limit.isdigit() else 0))
        self._last = [0] * len(self._zones)
        self._total = 0
        # The first reading only says where the counter stands.
        self.read()
        self._total = 0

    @property
    def available(self) -> bool:
        """Whether it can be read here; many systems allow that only to root."""
        return bool(self._zones)

    def read(self) -> float:
        """Joules since this object was made. To be called at least once per wrap of the counter (about a minute)."""
        for index, (path, limit) in enumerate(self._zones):
            text = _text(path)
            if text.isdigit():
                step = int(text) - self._last[index]
                # The counter starts again at `max_energy_range_uj`.
                self._total += step if step >= 0 else step + limit
                self._last[index] = int(text)
        return self._total / 1e6


@dataclass(frozen=True)
class TegraLine:
    """One line of ``tegrastats``.

    Attributes:
        watts: Power of every rail; ``VDD_IN`` (or its older names) is the whole module.
        degrees: Temperatures in degrees Celsius.
        ram_mb: Used memory of the whole system, in MiB as it prints it.
        gpu_percent: Load of the GPU.
    """

    watts: dict[str, float] = field(default_factory=dict)
    degrees: dict[str, float] = field(default_factory=dict)
    ram_mb: float | None = None
    gpu_percent: float | None = None

    @property
    def total_watts(self) -> float | None:
        """Power of the module: its input rail, or the sum of rails where there is none."""
        for name in ("VDD_IN", "POM_5V_IN", "VDD_TOTAL", "VIN_SYS_5V0"):
            if name in self.watts:
                return self.watts[name]
        return sum(self.watts.values()) if self.watts else None


def parse_tegrastats(line: str) -> TegraLine:
    """Read a line of NVIDIA's ``tegrastats``.

    Rails read ``VDD_IN 4940mW/4940mW`` (JetPack 5 and 6) or ``POM_5V_IN 2532/2532`` (JetPack 4): now/average.
    Temperatures read ``CPU@45.5C``, loads ``GR3D_FREQ 12%`` (NVIDIA Jetson Linux Developer Guide, tegrastats).
    """
    rails = re.finditer(r"\b([A-Z][A-Z0-9_]*)\s+(\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)", line)
    degrees = re.finditer(r"\b([A-Za-z][A-Za-z0-9_]*)@(-?\d+(?:\.\d+)?)C\b", line)
    ram = re.search(r"\bRAM (\d+)/\d+MB", line)
    gpu = re.search(r"\bGR3D(?:_FREQ)? (\d+)%", line)
    return TegraLine(
        {m[1]: int(m[2]) / 1e3 for m in rails},
        {m[1]: float(m[2]) for m in degrees if float(m[2]) > -200},  # -256 is a sensor that is off
        float(ram[1]) if ram else None,
        float(gpu[1]) if gpu else None,
    )


class Tegrastats:
    """Runs ``tegrastats`` and remembers its lines with their times.

    Args:
        command: The program and its arguments; found on the path by default.
        interval_ms: Time between lines.
    """

    def __init__(self, command: Sequence[str] | None = None, interval_ms: int = 100) -> None:
        path = shutil.which("tegrastats")
        self._command = list(command) if command else [path, "--interval", str(interval_ms)] if path else []
        self._lines: list[tuple[float, TegraLine]] = []
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def start(self) -> bool:
        """Start it and return whether it runs."""
        if not self._command:
            return False
        try:
            # bufsize=1: a line that waited in a buffer would be given the time of a later one.
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
            )
        except OSError:
            return False
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        return True

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._lock:
                self._lines.append((time.perf_counter(), parse_tegrastats(line)))

    def since(self, start: float) -> list[TegraLine]:
        """Lines that came after a time of ``perf_counter``; older ones are forgotten."""
        with self._lock:
            self._lines = [(when, line) for when, line in self._lines if when >= start]
            return [line for _, line in self._lines]

    def stop(self) -> None:
        """End the program."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._reader.join(_JOIN_S)
            self._process = None


@dataclass(frozen=True)
class Reading:
    """What the sensors said over a stretch of time.

    Attributes:
        watts: Mean power of the whole machine or its processors, see ``power_source``.
        degrees: The hottest zone at the end, in degrees Celsius.
        zones: All zones.
    """

    watts: float | None
    degrees: float | None
    zones: dict[str, float]


class Sensors:
    """Temperature and power over stretches of time, from whatever this machine has.

    Attributes:
        power_source: ``tegrastats``, ``rapl`` or empty.
    """

    def __init__(self, rapl: Rapl | None = None, tegrastats: Tegrastats | None = None, thermal: Path = THERMAL) -> None:
        self._rapl, self._tegra = rapl or Rapl(), tegrastats or Tegrastats()
        self._thermal = thermal
        # tegrastats first: it measures the whole module, RAPL the processors alone.
        self.power_source = "tegrastats" if self._tegra.start() else "rapl" if self._rapl.available else ""
        self.mark()

    def mark(self) -> None:
        """Begin a stretch."""
        self._start, self._joules = time.perf_counter(), self._rapl.read()

    def reading(self) -> Reading:
        """What happened since the last mark."""
        watts: float | None = None
        zones = temperatures(self._thermal)
        if self.power_source == "tegrastats":
            lines = self._tegra.since(self._start)
            totals = [w for line in lines if (w := line.total_watts) is not None]
            watts = sum(totals) / len(totals) if totals else None
            # The last line, as the zones are read at the end, too.
            zones = {**zones, **(lines[-1].degrees if lines else {})}
        elif self.power_source == "rapl":
            passed = time.perf_counter() - self._start
            watts = (self._rapl.read() - self._joules) / passed if passed > 0 else None
        return Reading(watts, max(zones.values()) if zones else None, zones)

    def close(self) -> None:
        """End what was started."""
        self._tegra.stop()
