"""FGFI's formula in plain numpy, box by box and anchor by anchor, double precision."""

from __future__ import annotations

import numpy as np


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def mask(anchors: np.ndarray, boxes: np.ndarray, valid: np.ndarray, per_position: int, threshold: float) -> np.ndarray:
    """One image: anchors ``[P A, 4]``, boxes ``[G, 4]``, valid ``[P]`` -> bool ``[P]``."""
    chosen = np.zeros(len(valid), dtype=bool)
    for box in boxes:
        overlaps = [iou(anchor, box) if valid[i // per_position] else 0.0 for i, anchor in enumerate(anchors)]
        for i, overlap in enumerate(overlaps):
            if overlap > threshold * max(overlaps):
                chosen[i // per_position] = True
    return chosen


def level_loss(student: np.ndarray, teacher: np.ndarray, chosen: np.ndarray, reduction: str) -> float:
    """Features ``[N, C, H, W]`` and bool ``[N, H, W]``."""
    total, count = 0.0, 0
    for n, y, x in np.ndindex(chosen.shape):
        if chosen[n, y, x]:
            total += float(((student[n, :, y, x] - teacher[n, :, y, x]) ** 2).sum())
            count += 1
    if not count:
        return 0.0
    return total / (count * student.shape[1]) if reduction == "mean" else total / (2 * count)
