"""Measurements of speed; nothing of the pipeline needs them."""
