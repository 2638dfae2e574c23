"""A trained YOLO as one canonical graph, and the vocabulary of its operations."""
