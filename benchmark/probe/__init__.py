"""Looks into trained detectors: which predictions and features of a box carry them."""
