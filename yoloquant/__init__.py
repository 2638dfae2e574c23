"""Small, fast, exact YOLO on the device it must run on, with its accuracy proven."""

__version__ = "0.1.0"
