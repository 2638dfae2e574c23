"""Devices that run ``.tflite`` files, and what must be installed there."""

from __future__ import annotations

from pathlib import Path

from ..base import Device, Requirement

_HERE = Path(__file__).parent
LITERT = Requirement("ai_edge_litert", "ai-edge-litert", "1.2.0")
TFLITE = Requirement("tflite_runtime", "tflite-runtime", "2.14.0")
"""The lowest versions in which a bundle of yolo11n was seen to verify (x86-64); tflite-runtime needs numpy below 2."""
LIBRARIES = (LITERT, TFLITE)
WHEELS = (  # ai-edge-litert has no wheels for older Pythons, its predecessor has
    f'{LITERT.package}>={LITERT.minimum}; python_version >= "3.9"',
    f'{TFLITE.package}>={TFLITE.minimum}; python_version < "3.9"',
)

RASPBERRY_PI = Device("raspberrypi", "Raspberry Pi (LiteRT)", LIBRARIES, WHEELS, _HERE / "raspberrypi.md.j2")
ANDROID = Device("android", "Android (LiteRT)", LIBRARIES, WHEELS, _HERE / "android.md.j2")
