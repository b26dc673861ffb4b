"""MGD by a convolution place by place, in plain numpy, float64; features are ``[N, C, H, W]``."""

from __future__ import annotations

import numpy as np


def convolution(features, weight, bias):
    """With zeros around the map, so that it keeps its size."""
    n, _, height, width = features.shape
    reach = weight.shape[-1] // 2
    padded = np.pad(features, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    out = np.zeros((n, weight.shape[0], height, width))
    for y in range(height):
        for x in range(width):
            patch = padded[:, :, y : y + weight.shape[2], x : x + weight.shape[3]]
            out[:, :, y, x] = np.tensordot(patch, weight, axes=([1, 2, 3], [1, 2, 3]))
    return out if bias is None else out + bias[:, None, None]


def mgd(student, teacher, mask, first, second):
    """``first`` and ``second``: (weight, bias) of the two convolutions; ``mask [N, 1, H, W]``."""
    hidden = np.maximum(convolution(student * mask, *first), 0)
    return ((convolution(hidden, *second) - teacher) ** 2).sum() / len(teacher)
