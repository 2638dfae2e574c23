"""One module for each verb: its own options beside the models that it shares, and what it does and prints."""
