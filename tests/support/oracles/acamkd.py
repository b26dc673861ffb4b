"""ACAM-KD image by image and mask by mask, in plain numpy, float64; features are ``[N, C, H, W]``."""

from __future__ import annotations

import numpy as np

from support.oracles.cwd import softmax


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def found(student, teacher, p):
    """F of one image ``[C, P]`` each; ``p``: parameters by the names of the level's modules."""
    query, key, value = (p[f"{name}.weight"][:, :, 0, 0] for name in ("query", "key", "value"))
    q, k, v = query @ teacher, key @ student, value @ student
    out = np.zeros((len(v), q.shape[1]))
    for position in range(q.shape[1]):
        shares = softmax(k.T @ q[:, position] / np.sqrt(len(q)))
        out[:, position] = v @ shares
    return out


def distance(difference, masks, axis, multiply):
    """Of one image, masks ``[M, C]`` (axis 0) or ``[M, P]`` (axis 1)."""
    values, others = [], difference.shape[1 - axis]
    for mask in masks:
        masked = difference * (mask[:, None] if axis == 0 else mask[None])
        scale = mask.sum() / others if multiply else 1 / (others * mask.sum())
        values.append(scale * (masked**2).sum())
    return np.mean(values)


def diversity(masks):
    count = len(masks)
    overlap = sum(masks[i] @ masks[j] for i in range(count) for j in range(count) if i != j)
    return 2 * overlap / (2 * sum(m @ m for m in masks))


def acamkd(student, teacher, p, multiply=False):
    """L_c, L_s and both L_div of one level, without weights, ``[3]``."""
    terms = []
    for s, t in zip(student, teacher, strict=True):
        s, t = s.reshape(len(s), -1), t.reshape(len(t), -1)
        f = found(s, t, p)
        over_channels = sigmoid(p["channel_token"] * f.mean(axis=1)[None])
        over_positions = sigmoid(p["spatial_token"] @ f)
        both = distance(t - s, over_channels, 0, multiply), distance(t - s, over_positions, 1, multiply)
        terms.append([*both, diversity(over_channels) + diversity(over_positions)])
    return np.mean(terms, axis=0)
