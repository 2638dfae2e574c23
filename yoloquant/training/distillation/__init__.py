"""Distillation of raw head outputs and features from a float teacher."""
