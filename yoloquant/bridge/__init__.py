"""Everything that touches Ultralytics outside of training."""
