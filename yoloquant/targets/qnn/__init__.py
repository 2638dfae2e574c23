"""Qualcomm Snapdragon: the Hexagon NPU of phones, through ONNX Runtime and Qualcomm's QNN."""
