"""Small, fast, exact YOLO on the device it must run on, with its accuracy proven."""
