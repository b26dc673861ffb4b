"""What tools/speed.py measures, a file a part."""
