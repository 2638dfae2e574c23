"""Validation: the same images, decode, NMS and matching for FP32 and every artifact; statistics; the gate."""
