"""Patterns of zeros inside layers: maths only, without a model's structure."""
