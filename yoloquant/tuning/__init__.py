"""Search: one study over the values of a recipe, sampled, stopped and stored by Optuna."""
