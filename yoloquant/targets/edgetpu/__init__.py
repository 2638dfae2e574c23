"""Edge TPU (Coral): operator check, compiler, and attention fitted to what it can run."""
