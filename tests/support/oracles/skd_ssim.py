"""SKD-SSIM by luminance, contrast and structure of each window, in plain numpy, float64; features ``[N, C, H, W]``."""

from __future__ import annotations

import math

import numpy as np


def reflected(index, length):
    """The cell that a place beyond the border stands for, the outermost cell being the mirror."""
    while not 0 <= index < length:
        if length == 1:
            return 0
        index = -index if index < 0 else 2 * (length - 1) - index
    return index


def window(values, y, x, reach):
    rows = [reflected(y + d, values.shape[0]) for d in range(-reach, reach + 1)]
    columns = [reflected(x + d, values.shape[1]) for d in range(-reach, reach + 1)]
    return values[np.ix_(rows, columns)]


def gaussian(reach, deviation):
    line = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * deviation**2))
    return np.outer(line, line) / line.sum() ** 2


def ssim(student, teacher, deviation=1.5, reach=5):
    """Of every cell of two maps ``[H, W]``."""
    weights, out = gaussian(reach, deviation), np.zeros(student.shape)
    c1, c2 = 0.01**2, 0.03**2
    for y, x in np.ndindex(student.shape):
        s, t = window(student, y, x, reach), window(teacher, y, x, reach)
        ms, mt = (weights * s).sum(), (weights * t).sum()
        ss, st = (math.sqrt((weights * (v - m) ** 2).sum()) for v, m in ((s, ms), (t, mt)))
        covariance = (weights * (s - ms) * (t - mt)).sum()
        luminance = (2 * ms * mt + c1) / (ms**2 + mt**2 + c1)
        contrast = (2 * ss * st + c2) / (ss**2 + st**2 + c2)
        structure = (covariance + c2 / 2) / (ss * st + c2 / 2)
        out[y, x] = luminance * contrast * structure
    return out


def in_range(features, scope):
    parts = {"image": lambda n, c: features[n], "channel": lambda n, c: features[n, c], "batch": lambda n, c: features}
    out = np.zeros(features.shape)
    for n, c in np.ndindex(features.shape[:2]):
        part = parts[scope](n, c)
        out[n, c] = (features[n, c] - part.min()) / (part.max() - part.min())
    return out


def skd_ssim(student, teacher, scope="image", deviation=1.5, reach=5):
    """One level, without its weight."""
    both = in_range(student, scope), in_range(teacher, scope)
    found = [ssim(both[0][i], both[1][i], deviation, reach) for i in np.ndindex(student.shape[:2])]
    return np.mean([(1 - value) / 2 for value in found])
