"""PCKA with its Gram matrices, patch by patch, in plain numpy, float64; features are ``[N, C, H, W]``."""

from __future__ import annotations

import math

import numpy as np


def resized(values, size):
    """A map at another size, bilinear, with cells' middles apart by the ratio of the sizes."""
    out = np.zeros(size)
    for y, x in np.ndindex(size):
        places = []
        for index, length, own in ((y, size[0], values.shape[0]), (x, size[1], values.shape[1])):
            at = max((index + 0.5) * own / length - 0.5, 0)
            low = min(math.floor(at), own - 1)
            places.append((low, min(low + 1, own - 1), at - low))
        (top, bottom, down), (left, right, along) = places
        above = values[top, left] * (1 - along) + values[top, right] * along
        below = values[bottom, left] * (1 - along) + values[bottom, right] * along
        out[y, x] = above * (1 - down) + below * down
    return out


def rows(features, channel, side):
    """X: a patch a row, images side by side."""
    size = tuple(math.ceil(length / side) * side for length in features.shape[2:])
    maps = [resized(image[channel], size) for image in features]
    return np.array(
        [
            np.concatenate([m[y : y + side, x : x + side].ravel() for m in maps])
            for y in range(0, size[0], side)
            for x in range(0, size[1], side)
        ]
    )


def alignment(x, y):
    """A."""
    gx, gy = x @ x.T, y @ y.T
    scale = math.sqrt(np.trace(gx @ gx) * np.trace(gy @ gy))
    return np.trace(gx @ gy) / scale if scale else 0.0


def pcka(student, teacher, side):
    """Both terms of one level, without their weight."""
    channels = range(student.shape[1])
    both = [(rows(student, c, side), rows(teacher, c, side)) for c in channels]
    patches = np.mean([1 - alignment(x, y) for x, y in both])
    cells = np.mean([1 - alignment(x.T, y.T) for x, y in both])
    return patches, cells
