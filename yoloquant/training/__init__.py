"""Quantization-aware training: what subclasses Ultralytics trainers, and the reading of its own QAT checkpoints."""
