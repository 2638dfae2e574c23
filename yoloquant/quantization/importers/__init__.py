"""Ranges that other tools' quantization-aware training left in a checkpoint."""
