"""DeFeat's masks and formula in plain numpy, box by box and cell by cell, double precision."""

from __future__ import annotations

import math

import numpy as np


def masks(boxes: np.ndarray, sizes: list[tuple[int, int]], strides: list[int], base: float) -> list[np.ndarray]:
    """One image: boxes ``[G, 4]`` -> for every level bool ``[H, W]``."""
    result = [np.zeros(size, dtype=bool) for size in sizes]
    for x1, y1, x2, y2 in boxes.tolist():
        scale = math.sqrt((x2 - x1 + 1) * (y2 - y1 + 1)) / (base * strides[0])
        level = min(max(math.floor(math.log2(scale)), 0), len(sizes) - 1)
        (rows, columns), stride = sizes[level], strides[level]
        left, top = max(int(x1 / stride), 0), max(int(y1 / stride), 0)
        right, bottom = min(int(x2 / stride), columns), min(int(y2 / stride), rows)
        if left == right or top == bottom:
            result[level][top, left] = True
        else:
            result[level][top:bottom, left:right] = True
    return result


def term(student: list[np.ndarray], teacher: list[np.ndarray], chosen: list[np.ndarray]) -> float:
    """Of features ``[N, C, H, W]`` and bool ``[N, H, W]`` of every level; the mean over levels."""
    total = 0.0
    for s, t, mask in zip(student, teacher, chosen, strict=True):
        part, count = 0.0, 0
        for n, c, y, x in np.ndindex(s.shape):
            if mask[n, y, x]:
                part += (s[n, c, y, x] - t[n, c, y, x]) ** 2
                count += 1
        total += part / max(1, 2 * count)
    return total / len(student)
