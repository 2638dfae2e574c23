"""Results that a model gave elsewhere, read from files that anybody may have written."""
