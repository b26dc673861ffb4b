"""MasKD mask by mask and position by position, in plain numpy, float64; features of an image are ``[C, H, W]``."""

from __future__ import annotations

import numpy as np

from support.oracles.acamkd import sigmoid
from support.oracles.cwd import softmax


def masks(features, p):
    """M_t ``[M, H, W]`` of one image; ``p``: parameters by the names of the level's module."""
    out = np.zeros((len(p["tokens"]), *features.shape[1:]))
    for t, y, x in np.ndindex(*out.shape):
        out[t, y, x] = sigmoid(p["tokens"][t] @ features[:, y, x])
    return out


def weights(features, p):
    """p of one image ``[M]``."""
    _, height, width = features.shape
    padded = np.pad(features, ((0, 0), (1, 1), (1, 1)))
    pooled = np.zeros(len(p["shares.0.weight"]))
    for y, x in np.ndindex(height, width):
        patch = padded[:, y : y + 3, x : x + 3]
        pooled += p["shares.0.bias"] + (p["shares.0.weight"] * patch).sum(axis=(1, 2, 3))
    return softmax(p["shares.2.weight"][:, :, 0, 0] @ (pooled / (height * width)) + p["shares.2.bias"])


def seen(features, p):
    """F' of one image."""
    return sum(
        share * mask[None] * features for share, mask in zip(weights(features, p), masks(features, p), strict=True)
    )


def overlap(masks_by_image):
    found = []
    for own in masks_by_image:
        for t, u in np.ndindex(len(own), len(own)):
            if t != u:
                found.append(2 * (own[t] * own[u]).sum() / ((own[t] ** 2).sum() + (own[u] ** 2).sum() + 2e-12))
    return np.mean(found)


def distance(student, teacher, p, own=None):
    """One level of L without its weight, the student's behind its adapter; masks of ``own`` count as well."""
    images = []
    for n, (s, t) in enumerate(zip(student, teacher, strict=True)):
        found = masks(t, p) * (1 if own is None else masks(own[n], p))
        total = 0.0
        for share, mask in zip(weights(t, p), found, strict=True):
            by_channel = [((mask * (a - b)) ** 2).sum() / mask.sum() for a, b in zip(s, t, strict=True)]
            total += share * np.mean(by_channel)
        images.append(total)
    return np.mean(images)
