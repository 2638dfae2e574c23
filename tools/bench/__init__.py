"""Parts of the benchmark: contenders, Ultralytics' own exports, latency, agreement, goals and the table."""
