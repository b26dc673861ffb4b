"""Measurements of speed, and many more scenes for the metrics; nothing of the pipeline needs them."""
