"""Pure tensor functions: key regions, masks, attention, anchors."""
