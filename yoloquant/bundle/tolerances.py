"""How far a device may be off."""

from __future__ import annotations

from ..runtime.apps.golden import Tolerances

TOLERANCES = Tolerances(boxes=0.025, scores=0.2, score=0.15, iou=0.7, agreement=0.9)
"""Above what kernels of one runtime were seen to differ by, and below what wrong preprocessing does.

``tools/compare_kernels.py`` on x86-64, three golden inputs each of yolo11n at 640 and the demonstration model at 320:
LiteRT's XNNPACK against its built-in and reference kernels, ONNX Runtime with and without fusion, OpenVINO in float32
and bfloat16, one thread and two. Between these, boxes differ by at most 0.014, scores by at most 0.117, and at least
97.8 % of the detections agree; older releases (tflite-runtime 2.14, ai-edge-litert 1.2, OpenVINO 2023.1, ONNX Runtime
1.15) stay within 0.016, 0.104 and 100 %. Red and blue exchanged, or a letterbox six pixels beside its place, give at
least 0.042 and 0.30, and at most 74 % agree; a mild blur at least 0.027 and 0.155. Arm processors and TensorRT on a
Jetson were not measured.
"""
