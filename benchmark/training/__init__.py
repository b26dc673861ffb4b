"""What happens inside a training: hooks, records of it, and all methods on all detectors."""
