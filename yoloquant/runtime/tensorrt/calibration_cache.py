"""TensorRT's calibration cache: the text file in which implicit quantization finds the scale of every tensor.

The first line names the release and the algorithm; each further line is ``tensor name: scale``, the scale being the
big-endian bytes of a float32 in hexadecimal and equal to ``amax / 127`` (README of NVIDIA's sampleINT8, "Calibration
file"). TensorRT takes a cache only if the first line fits its own release, so it is written where it is used.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

from ..errors import ArtifactError

ALGORITHM = "EntropyCalibration2"  # the only one that a DLA takes (TensorRT developer guide, DLA)
PORTABLE_RELEASE = "0"


def release_tag(version: tuple[int, ...]) -> str:
    """How a release calls itself in the file: four digits such as ``8502`` before TensorRT 10, ``100300`` from then on.

    The digits are those of ``NV_TENSORRT_VERSION``: major * 1000 + minor * 100 + patch before 10, major * 10000 +
    minor * 100 + patch since (NvInferVersion.h).
    """
    major, minor, patch = (*version, 0, 0, 0)[:3]
    return str(major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch)


def dump(scales: Mapping[str, float], release: str = PORTABLE_RELEASE) -> str:
    """Text of a cache.

    Args:
        scales: Real value of one integer step by tensor name, above 0.
        release: What ``release_tag`` returned; a bundle holds a cache of no release, which ``retag`` completes.

    Raises:
        ArtifactError: A scale is not finite and above 0, or a name cannot be written.
    """
    lines = [f"TRT-{release}-{ALGORITHM}"]
    for name, scale in scales.items():
        if not (math.isfinite(scale) and scale > 0):
            raise ArtifactError(f"tensor {name} has the scale {scale}; it must be finite and above 0")
        if not name or "\n" in name:
            raise ArtifactError(f"a tensor is called {name!r}, which a calibration cache cannot hold")
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"


def load(text: str) -> dict[str, float]:
    """Scales of a cache, by tensor name.

    Raises:
        ArtifactError: It is damaged.
    """
    head, *lines = text.split("\n")
    if not (head.startswith("TRT-") and head.endswith(f"-{ALGORITHM}")):
        raise ArtifactError(f"this is no calibration cache of {ALGORITHM}: it starts with {head[:60]!r}")
    scales: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        # From the right: names of tensors may hold colons.
        name, found, digits = line.rpartition(": ")
        try:
            (scale,) = struct.unpack(">f", bytes.fromhex(digits.strip()))
        except (ValueError, struct.error):
            found = ""
        if not found or not name or name in scales:
            raise ArtifactError(f"line {number} of the calibration cache is damaged: {line[:80]!r}; copy it again")
        if not (math.isfinite(scale) and scale > 0):
            raise ArtifactError(f"line {number} of the calibration cache has the scale {scale}; copy it again")
        scales[name] = scale
    if not scales:
        raise ArtifactError("the calibration cache holds no scales; export again")
    return scales


def retag(text: str, version: tuple[int, ...]) -> bytes:
    """The same cache for a release of TensorRT.

    Raises:
        ArtifactError: It is damaged.
    """
    return dump(load(text), release_tag(version)).encode("utf-8")
