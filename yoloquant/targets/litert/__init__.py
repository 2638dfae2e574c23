"""LiteRT (formerly TensorFlow Lite): full-integer ``.tflite`` files for phones, Raspberry Pi and Edge TPU."""

from __future__ import annotations

from .target import EdgeTPUTarget, LiteRTTarget

__all__ = ["EdgeTPUTarget", "LiteRTTarget"]
