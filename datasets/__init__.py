"""Data set descriptions, manifests and the generator of the embedded demo set."""
