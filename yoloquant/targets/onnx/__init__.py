"""Q/DQ ONNX, shared by every target that starts from it."""
