"""DetKDS value by value, in plain numpy, float64; features are ``[N, C, H, W]``."""

from __future__ import annotations

import math

import numpy as np

from support.oracles.cwd import softmax


def at(values, y, x):
    """A map's value; zero beyond its right and lower border."""
    return values[y, x] if y < values.shape[0] and x < values.shape[1] else 0.0


def unit(values):
    length = math.sqrt(sum(v * v for v in values))
    return [v / max(length, 1e-12) for v in values]


def whole(features, group):
    """G."""
    n, c, height, width = features.shape
    out = np.zeros((n, c, math.ceil(height / 2), math.ceil(width / 2)))
    for i in range(n):
        attention = softmax([np.abs(features[i, k]).mean() / 0.5 for k in range(c)])
        for k, y, x in np.ndindex(out.shape[1:]):
            weighted = features[i, k] * math.sqrt(c * attention[k])
            out[i, k, y, x] = max(at(weighted, 2 * y + dy, 2 * x + dx) for dy in (0, 1) for dx in (0, 1))
    for start in range(0, n, group):
        for place in np.ndindex(out.shape[1:]):
            images = range(start, min(start + group, n))
            for i, value in zip(images, unit([out[i][place] for i in images]), strict=True):
                out[i][place] = value
    return out


def patches(features):
    """H by patches, one after another: ``[patches, 16]``."""
    n, c, height, width = features.shape
    rows = []
    for i, k, y, x in np.ndindex(n, c, math.ceil(height / 4), math.ceil(width / 4)):
        rows.append(unit([at(features[i, k], 4 * y + dy, 4 * x + dx) for dy in range(4) for dx in range(4)]))
    return np.array(rows)


def masked(features, keep):
    """H under a mask ``keep [N, 1, H, W]``."""
    out = np.zeros_like(features)
    for i, y, x in np.ndindex(features.shape[0], *features.shape[2:]):
        if keep[i, 0, y, x]:
            out[i, :, y, x] = unit(features[i, :, y, x])
    return out


def masks(boxes, image_size, size):
    """Foreground and background of one image, ``[H, W]`` each."""
    (rows, columns), foreground = size, np.zeros(size)
    for x1, y1, x2, y2 in boxes:
        left, right = math.floor(x1 / image_size[1] * columns), math.ceil(x2 / image_size[1] * columns)
        top, bottom = math.floor(y1 / image_size[0] * rows), math.ceil(y2 / image_size[0] * rows)
        for y, x in np.ndindex(size):
            if top <= y <= bottom and left <= x <= right:
                foreground[y, x] = max(foreground[y, x], 1 / ((bottom - top + 1) * (right - left + 1)))
    free = foreground == 0
    return foreground, free / max(free.sum(), 1)
