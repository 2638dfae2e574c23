"""What a person runs on a device: predict, bench, verify, and the pipelines behind them."""
