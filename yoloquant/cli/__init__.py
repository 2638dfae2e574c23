"""The ``yoloquant`` command: the only place that prints, draws progress bars and sets exit codes."""
