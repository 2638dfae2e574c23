"""Make an aarch64 root in which artifacts and bundles run under qemu-user: Python, NumPy, OpenCV and the runtimes.

    python tools/make_device_root.py root=/var/tmp/aarch64

It holds what a Raspberry Pi has, unpacked: Debian's packages for arm64 (by debootstrap, which checks their signatures)
and the runtimes' wheels for it (by uv, which checks their hashes). Nothing in it is configured or started, so it needs
no second stage, no chroot and no binfmt: ``qemu-aarch64-static -L ROOT`` looks there for every file before it looks
here. Two libraries ask the kernel which processor this is, so the root answers for it: ONNX Runtime crashes on the
x86 text in /proc/cpuinfo, and OpenVINO reads MIDR_EL1 from /sys.

It resumes: packages and wheels that are there are not fetched again, and every file of a wheel is checked against the
wheel's own list of hashes. ``device.json`` is written last, so a root without it is incomplete.

Options (``key=value`` or ``--key value``): root (the folder, outside this repository), suite (bookworm, which is
Python 3.11 and Raspberry Pi OS 12, or trixie, Python 3.13 and Raspberry Pi OS 13), mirror (debootstrap's own),
runtimes (all; names separated by commas). Versions are those installed beside this tool, as a bundle asks for them.
Python 3.8 and 3.10 of NVIDIA's JetPack are Ubuntu's: Debian has neither, so no root can be made for them here.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.options import parse_options

DEFAULTS: dict[str, str] = {"root": "", "suite": "bookworm", "mirror": "", "runtimes": "all"}
RUNTIMES = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}
MODULES = {"litert": "ai_edge_litert.interpreter", "onnxruntime": "onnxruntime", "openvino": "openvino"}
INCLUDED = "python3-minimal,libpython3-stdlib,libstdc++6,libgomp1"
LINKED = ("bin", "sbin", "lib")  # Debian has kept these in /usr since Bookworm
TIMEOUT_S = 1800


@dataclass(frozen=True)
class Suite:
    """A Debian release.

    Attributes:
        python: Its Python.
        platform: The newest manylinux whose glibc it has, for uv.
    """

    python: str
    platform: str


SUITES = {
    "bookworm": Suite("3.11", "aarch64-manylinux_2_36"),
    "trixie": Suite("3.13", "aarch64-manylinux_2_40"),
}

# Cortex-A76, the Raspberry Pi 5's; qemu emulates it, and these are the two places where libraries look its name up
_FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
_IDENTITY = f"Features\t: {_FEATURES}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
_IDENTITY += "CPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n"
_MIDR = "0x00000000414fd0b1\n"


def main(arguments: Sequence[str]) -> int:
    """Make the root, or complete it."""
    values = parse_options(arguments, DEFAULTS, __doc__ or "")
    problem = _problem(values)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    root, suite = Path(values["root"]).resolve(), SUITES[values["suite"]]
    names = list(RUNTIMES) if values["runtimes"] == "all" else values["runtimes"].split(",")
    root.mkdir(parents=True, exist_ok=True)
    try:
        unpack_debian(root, values["suite"], values["mirror"])
        answer_for_kernel(root)
        packages = install_wheels(root, suite, names)
        works = check_runtimes(root, suite, names)
    except subprocess.SubprocessError as exc:
        print(f"the root '{root}' is incomplete: {exc}; run this again to go on", file=sys.stderr)
        return 1
    write_description(root, values["suite"], packages, works)
    print(f"{root}: Python {suite.python}, {', '.join(f'{n} {v}' for n, v in sorted(packages.items()))}")
    return 0 if works else 1


def _problem(values: dict[str, str]) -> str:
    """What keeps the work from starting, in one sentence; empty if nothing does."""
    if not values["root"]:
        return "root= is missing; name a folder outside the repository, for instance root=/var/tmp/aarch64"
    if values["suite"] not in SUITES:
        return f"suite={values['suite']} is not known; allowed are {', '.join(SUITES)}"
    unknown = [n for n in values["runtimes"].split(",") if n != "all" and n not in RUNTIMES]
    if unknown:
        return f"runtimes={unknown[0]} is not known; allowed are all, {', '.join(RUNTIMES)}"
    missing = [t for t in ("debootstrap", "dpkg-deb", "qemu-aarch64-static") if shutil.which(t) is None]
    if missing:
        return f"{missing[0]} is not installed; apt-get install debootstrap qemu-user-static"
    return "" if uv() else "uv is not installed beside this Python; pip install uv"


def uv() -> str | None:
    """The uv beside this Python, or any."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def unpack_debian(root: Path, suite: str, mirror: str) -> None:
    """Fetch Debian's packages for arm64 with debootstrap and unpack them; nothing runs and nothing is configured."""
    done = root / ".unpacked"
    if done.exists():
        return
    cache = root / "cache"
    cache.mkdir(exist_ok=True)
    fetched = root / "fetched"
    command = ["debootstrap", "--download-only", "--variant=minbase", "--arch=arm64", f"--include={INCLUDED}"]
    _run([*command, f"--cache-dir={cache}", suite, str(fetched), *([mirror] if mirror else [])])
    for name in LINKED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for package in sorted((fetched / "var/cache/apt/archives").glob("*.deb")):
        archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
        _run(["tar", "-x", "--keep-directory-symlink", "-C", str(root), "-f", "-"], archive)
    shutil.rmtree(fetched)
    done.touch()


def answer_for_kernel(root: Path) -> None:
    """Files that libraries read to learn which processor they run on."""
    cores = os.cpu_count() or 1
    (root / "proc").mkdir(exist_ok=True)
    text = "".join(f"processor\t: {core}\nBogoMIPS\t: 108.00\n{_IDENTITY}\n" for core in range(cores))
    (root / "proc" / "cpuinfo").write_text(text, encoding="ascii")
    folder = root / "sys/devices/system/cpu"
    for core in range(cores):
        identity = folder / f"cpu{core}/regs/identification"
        identity.mkdir(parents=True, exist_ok=True)
        (identity / "midr_el1").write_text(_MIDR, encoding="ascii")
    for name in ("possible", "present", "online"):
        (folder / name).write_text(f"0-{cores - 1}\n" if cores > 1 else "0\n", encoding="ascii")


def install_wheels(root: Path, suite: Suite, names: Sequence[str]) -> dict[str, str]:
    """Install the runtimes' wheels for aarch64; name and version of everything that is there afterwards."""
    site = root / "site-packages"
    for damaged in damaged_files(site):
        print(f"{damaged} is not what its wheel holds; every wheel is installed again", file=sys.stderr)
        shutil.rmtree(site)
        break
    wanted = [f"{RUNTIMES[n]}=={metadata.version(RUNTIMES[n])}" for n in names]
    wanted += [f"numpy=={metadata.version('numpy')}", "opencv-python-headless", "pyyaml"]
    command = [str(uv()), "pip", "install", "--quiet", "--target", str(site), "--only-binary", ":all:"]
    _run([*command, "--python-platform", suite.platform, "--python-version", suite.python, *wanted])
    found = (d.name.removesuffix(".dist-info").rpartition("-") for d in site.glob("*.dist-info"))
    return {name.replace("_", "-"): version for name, _, version in found}


def damaged_files(site: Path) -> Iterator[str]:
    """Files that differ from the hashes which their wheels list (PEP 376)."""
    for record in site.glob("*.dist-info/RECORD"):
        with record.open(newline="", encoding="utf-8") as stream:
            for name, digest, _ in csv.reader(stream):
                if digest.startswith("sha256=") and not _is(site / name, digest.removeprefix("sha256=")):
                    yield name


def _is(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    found = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
    return found.decode().rstrip("=") == digest


def check_runtimes(root: Path, suite: Suite, names: Sequence[str]) -> list[str]:
    """Import every runtime under emulation; the names of those that work."""
    works = []
    for name in names:
        command = ["qemu-aarch64-static", "-cpu", "cortex-a76", "-L", str(root), str(python_of(root, suite)), "-c"]
        code = f"import numpy, cv2, {MODULES[name]}"
        environment = {**os.environ, "PYTHONPATH": str(root / "site-packages"), "PYTHONNOUSERSITE": "1"}
        environment.pop("LD_LIBRARY_PATH", None)
        found = subprocess.run([*command, code], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
        if found.returncode == 0:
            works.append(name)
        else:
            last = (found.stderr.strip().splitlines() or ["no output"])[-1]
            print(f"{name} does not start under emulation (exit status {found.returncode}): {last}", file=sys.stderr)
    return works


def python_of(root: Path, suite: Suite) -> Path:
    """The root's Python."""
    return root / "usr/bin" / f"python{suite.python}"


def write_description(root: Path, suite: str, packages: dict[str, str], works: Sequence[str]) -> None:
    """What the root holds; written last and renamed, so that its presence says that the root is complete."""
    data = {
        "version": 1,
        "machine": "aarch64",
        "suite": suite,
        "python": f"usr/bin/python{SUITES[suite].python}",
        "site": "site-packages",
        "packages": packages,
        "runtimes": list(works),
    }
    temporary = root / "device.json.part"
    temporary.write_text(json.dumps(data, indent=2), encoding="utf-8")
    temporary.replace(root / "device.json")


def _run(command: Sequence[str], stdin: bytes | None = None) -> None:
    subprocess.run(command, check=True, input=stdin, timeout=TIMEOUT_S, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
