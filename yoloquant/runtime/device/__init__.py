"""What the platform offers and tells: CUDA memory and streams, sensors, environment variables."""
