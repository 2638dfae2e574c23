"""LiteRT (formerly TensorFlow Lite): full-integer ``.tflite`` files for phones, Raspberry Pi and Edge TPU."""
