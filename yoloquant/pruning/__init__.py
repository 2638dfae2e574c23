"""Pruning: what can be removed (groups), how much it matters (importance), what is removed (plan), and the removal."""
