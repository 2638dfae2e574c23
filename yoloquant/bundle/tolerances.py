"""How far a device may be off."""

from __future__ import annotations

from ..runtime.golden import Tolerances

TOLERANCES = Tolerances(boxes=0.03, scores=0.2, score=0.15, iou=0.7, agreement=0.9)
"""Twice what kernels of one runtime were seen to differ by, and less than any wrong preprocessing does.

Three golden inputs each, yolo11n at 640 and the demonstration model at 320 (``tools/compare_kernels.py``): LiteRT's
XNNPACK against its built-in and reference kernels, ONNX Runtime with and without fusion, OpenVINO in float32 and
bfloat16, one thread and two. Between these, boxes differ by up to 0.014 and scores by up to 0.113, and all detections
agree. Red and blue exchanged, a blurred image, or a letterbox six pixels beside its place give at least 0.040 and 0.21,
and at most 83 % of the detections agree. TensorRT on a Jetson was not measured.
"""
