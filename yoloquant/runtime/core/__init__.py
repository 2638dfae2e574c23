"""From an image to detections and from detections to metrics, in NumPy and OpenCV."""
