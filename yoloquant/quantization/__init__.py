"""Quantization: graph, plan, schemes, calibration and simulation."""
