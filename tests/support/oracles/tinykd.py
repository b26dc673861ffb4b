"""TinyKD pixel by pixel and patch by patch, in plain numpy, float64; features are ``[N, C, H, W]``."""

from __future__ import annotations

import math

import numpy as np

from support.oracles.cwd import softmax
from support.oracles.mgd import convolution


def masks(boxes, canvas, size):
    """Foreground and background of one image, ``[H, W]`` each, by way of a canvas of pixels."""
    pixels = np.zeros(canvas)
    for x1, y1, x2, y2 in boxes:
        left, top, right, bottom = math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)
        share = canvas[0] * canvas[1] / ((bottom + 1 - top) * (right + 1 - left))
        for y, x in np.ndindex(*canvas):
            if top <= y <= bottom and left <= x <= right:
                pixels[y, x] = max(pixels[y, x], share)
    foreground = np.zeros(size)
    for y, x in np.ndindex(*size):
        rows, columns = ((i * c // s, -(-(i + 1) * c // s)) for i, c, s in zip((y, x), canvas, size, strict=True))
        foreground[y, x] = pixels[slice(*rows), slice(*columns)].max()
    if foreground.any():
        foreground /= foreground.sum()
    free = foreground == 0
    return foreground, free / max(free.sum(), 1)


def attention(features, p, tau, patch=16):
    """R; ``p``: parameters by the names of the module's convolutions."""
    query, key, value = (
        convolution(features, p[f"{name}.weight"], p.get(f"{name}.bias")) for name in ("query", "key", "value")
    )
    mixed = np.zeros_like(features)
    n, _, height, width = features.shape
    for i in range(n):
        for top in range(0, height, patch):
            for left in range(0, width, patch):
                cells = [
                    (y, x) for y in range(top, min(top + patch, height)) for x in range(left, min(left + patch, width))
                ]
                for y, x in cells:
                    share = softmax([query[i, :, y, x] @ key[i, :, v, u] / tau for v, u in cells])
                    mixed[i, :, y, x] = sum(s * value[i, :, v, u] for s, (v, u) in zip(share, cells, strict=True))
    return features + convolution(mixed, p["out.weight"], p["out.bias"])


def distance(student, teacher, foreground, background, alpha_fg=1.0, alpha_bg=0.5):
    """D; masks ``[N, H, W]``."""
    n, c = student.shape[:2]
    total = 0.0
    for i, y, x in np.ndindex(*foreground.shape):
        weight = alpha_fg * foreground[i, y, x] + alpha_bg * background[i, y, x]
        total += weight * ((student[i, :, y, x] - teacher[i, :, y, x]) ** 2).sum()
    return total / (n * c)
