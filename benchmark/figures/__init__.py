"""Figures of what the stages left behind."""
