from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path

import pytest

from yoloquant.runtime.device import sensors
from yoloquant.runtime.device.sensors import Rapl, Sensors, Tegrastats, parse_tegrastats

ORIN = (
    "11-04-2025 10:00:00 RAM 3110/7620MB (lfb 5x4MB) SWAP 0/3810MB (cached 0MB) CPU [12%@1510,off,0%@1510] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 34%@[611] VIC_FREQ 729 APE 174 CV0@-256C CPU@47.531C tboard@37C SOC2@45.5C GPU@46.0C "
    "VDD_IN 5125mW/4940mW VDD_CPU_GPU_CV 1320mW/1200mW VDD_SOC 1500mW/1490mW"
)
NANO = (
    "RAM 1903/3956MB (lfb 121x4MB) GR3D_FREQ 99%@921 PLL@31C CPU@34.5C iwlwifi@36C PMIC@100C "
    "GPU@33.5C POM_5V_IN 6532/5032 POM_5V_GPU 2100/900"
)


def test_tegrastats_of_jetpack_6() -> None:
    line = parse_tegrastats(ORIN)
    assert line.watts == {"VDD_IN": 5.125, "VDD_CPU_GPU_CV": 1.32, "VDD_SOC": 1.5} and line.total_watts == 5.125
    assert line.degrees == {"CPU": 47.531, "tboard": 37.0, "SOC2": 45.5, "GPU": 46.0}, (
        "a sensor that is off is left out"
    )
    assert (line.ram_mb, line.gpu_percent) == (3110, 34)


def test_tegrastats_of_jetpack_4() -> None:
    line = parse_tegrastats(NANO)
    assert line.total_watts == 6.532 and line.watts["POM_5V_GPU"] == 2.1 and line.degrees["GPU"] == 33.5
    assert line.gpu_percent == 99


def test_rails_without_an_input_rail_are_summed_and_noise_says_nothing() -> None:
    assert parse_tegrastats("CPU 1000mW/1mW GPU 2500mW/1mW").total_watts == 3.5
    empty = parse_tegrastats("no such thing")
    assert empty.total_watts is None and not empty.degrees and empty.ram_mb is None


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def test_temperatures_by_type(tmp_path: Path) -> None:
    write(tmp_path / "thermal_zone0", type="cpu-thermal", temp=51500)
    write(tmp_path / "thermal_zone1", type="gpu-thermal", temp=-256000)  # off
    write(tmp_path / "thermal_zone2", type="cpu-thermal", temp=48000)
    write(tmp_path / "thermal_zone3", type="wifi")  # cannot be read
    assert sensors.temperatures(tmp_path) == {"cpu-thermal": 51.5, "cpu-thermal (thermal_zone2)": 48.0}
    assert sensors.temperatures(tmp_path / "none") == {}


def rapl_tree(root: Path, *energies: int) -> Path:
    for index, energy in enumerate(energies):
        write(root / f"intel-rapl:{index}", energy_uj=energy, max_energy_range_uj=10_000_000)
        write(root / f"intel-rapl:{index}:0", energy_uj=999, max_energy_range_uj=10_000_000)  # a part of it
    return root


def test_energy_is_summed_over_packages_and_survives_a_wrap(tmp_path: Path) -> None:
    meter = Rapl(rapl_tree(tmp_path, 1_000_000, 9_000_000))
    assert meter.available and meter.read() == 0.0
    rapl_tree(tmp_path, 3_500_000, 500_000)
    assert meter.read() == pytest.approx(2.5 + 1.5)
    rapl_tree(tmp_path, 3_500_000, 600_000)
    assert meter.read() == pytest.approx(4.1)


def test_no_energy_counter_is_no_power(tmp_path: Path) -> None:
    meter = Rapl(tmp_path)
    assert not meter.available and meter.read() == 0.0
    found = Sensors(meter, Tegrastats(["/no/such/program"]), tmp_path)
    assert found.power_source == ""
    assert found.reading().watts is None and found.reading().degrees is None


def test_power_from_energy(tmp_path: Path) -> None:
    write(tmp_path / "zones" / "thermal_zone0", type="cpu", temp=40000)
    found = Sensors(Rapl(rapl_tree(tmp_path, 0)), Tegrastats(["/no/such/program"]), tmp_path / "zones")
    found.mark()
    start = time.perf_counter()
    time.sleep(0.05)
    rapl_tree(tmp_path, 1_000_000)
    reading = found.reading()
    assert reading.watts == pytest.approx(1 / (time.perf_counter() - start), rel=0.5) and reading.degrees == 40.0


def test_power_from_tegrastats(tmp_path: Path) -> None:
    later = ORIN.replace("5125", "7125")
    lines = f"time.sleep(0.5)\nprint({ORIN!r}, flush=True)\ntime.sleep(0.1)\nprint({later!r}, flush=True)"
    program = f"import time\n{lines}\ntime.sleep(60)"
    found = Sensors(Rapl(tmp_path), Tegrastats([sys.executable, "-c", program]), tmp_path)
    try:
        assert found.power_source == "tegrastats"
        deadline = time.monotonic() + 20
        while found.reading().watts != pytest.approx(6.125) and time.monotonic() < deadline:
            time.sleep(0.02)
        reading = found.reading()
        assert reading.watts == pytest.approx(6.125) and reading.degrees == 47.531
        found.mark()
        assert found.reading().watts is None, "what came before the mark does not count"
    finally:
        found.close()


def test_memory_from_proc(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n")
    assert sensors.memory(status) == (pytest.approx(104.8576), pytest.approx(209.7152))


def test_memory_of_this_process_grows_with_what_it_holds() -> None:
    before, _ = sensors.memory()
    if before is None:
        pytest.skip("this system does not tell")
    held = mmap.mmap(-1, 64 << 20)  # fresh pages, unlike what Python may have kept of earlier objects
    held.write(b"x" * len(held))
    after, peak = sensors.memory()
    assert after is not None and after - before > 60 and (peak is None or peak >= after - 1)


def test_memory_without_proc_or_psutil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert sensors.memory(tmp_path / "none") == (None, None)


def test_governors(tmp_path: Path) -> None:
    for index, name in enumerate(("schedutil", "schedutil", "performance")):
        write(tmp_path / f"cpu{index}" / "cpufreq", scaling_governor=name)
    assert sensors.governors(tmp_path) == ("performance", "schedutil")
