"""Ways to a wrong verdict, by the part that could be wrong; ``tools/check_verdicts.py`` runs them."""
