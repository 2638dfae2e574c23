"""Data sets: images, labels, splits, manifests, calibration samples and the demonstration."""
