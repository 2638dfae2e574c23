"""TensorRT: a canonical Q/DQ ONNX, a linter for it, and a compile check with TensorRT-RTX."""
