"""The experiment: what is compared, on what, how it is reported."""
