"""Quantization-aware training: learned ranges in a live model, its trainer and its checkpoints."""
