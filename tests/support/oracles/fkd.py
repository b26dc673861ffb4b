"""FKD with its matrix of positions by keys, in plain numpy, float64; features are ``[N, C, H, W]``.

Parameters come by the names of the modules of :mod:`pgd.methods.fkd`, without the level.
"""

from __future__ import annotations

import math

import numpy as np

from support.oracles.cwd import softmax
from support.oracles.mgd import convolution


def attention(features, temperature):
    """A(p) ``[N, H, W]`` and A(c) ``[N, C]``."""
    n, c, height, width = features.shape
    places, channels = np.zeros((n, height, width)), np.zeros((n, c))
    for image in range(n):
        energy = np.abs(features[image])
        share = softmax([v / temperature for v in energy.mean(axis=0).ravel()])
        places[image] = height * width * np.reshape(share, (height, width))
        channels[image] = c * np.array(softmax([v / temperature for v in energy.mean(axis=(1, 2))]))
    return places, channels


def pooled(features, steps):
    """The largest value of each window of ``steps`` (rows, columns); incomplete windows at the far borders drop out."""
    n, c, height, width = features.shape
    down, right = steps
    out = np.zeros((n, c, height // down, width // right))
    for y in range(height // down):
        for x in range(width // right):
            window = features[:, :, y * down : (y + 1) * down, x * right : (x + 1) * right]
            out[:, :, y, x] = window.max(axis=(2, 3))
    return out


def non_local(features, p, prefix, steps, eps=1e-5):
    """R with batch norm by the statistics of the batch; the parameters' names begin with ``prefix``."""

    def conv(name, x):
        return convolution(x, p[f"{prefix}.{name}.weight"], p.get(f"{prefix}.{name}.bias"))

    query, key, value = (
        conv("theta", features),
        pooled(conv("phi", features), steps),
        pooled(conv("g", features), steps),
    )
    mixed = np.zeros_like(query)
    for image in range(len(features)):
        keys, values = key[image].reshape(key.shape[1], -1), value[image].reshape(value.shape[1], -1)
        for y in range(query.shape[2]):
            for x in range(query.shape[3]):
                likeness = [query[image, :, y, x] @ keys[:, k] / keys.shape[1] for k in range(keys.shape[1])]
                mixed[image, :, y, x] = sum(w * values[:, k] for k, w in enumerate(likeness))
    out = conv("out", mixed)
    mean, variance = out.mean(axis=(0, 2, 3)), out.var(axis=(0, 2, 3))
    gain, shift = p[f"{prefix}.norm.weight"], p[f"{prefix}.norm.bias"]
    standard = (out - mean[:, None, None]) / np.sqrt(variance + eps)[:, None, None]
    return features + standard * gain[:, None, None] + shift[:, None, None]


def fkd(student, teacher, p, steps, temperature, channel_mask=True):
    """The four distances of one level, without weights; ``steps`` of the keys' pooling."""
    places, channels = (
        (a + b) / 2 for a, b in zip(attention(student, temperature), attention(teacher, temperature), strict=True)
    )
    mask = places[:, None] * (channels[:, :, None, None] if channel_mask else 1)
    adapted = convolution(student, p["feature.adapter.weight"], p["feature.adapter.bias"])
    channel = student.mean(axis=(2, 3)) @ p["channel.adapter.weight"].T + p["channel.adapter.bias"]
    spatial = convolution(student.mean(axis=1, keepdims=True), p["spatial.adapter.weight"], p["spatial.adapter.bias"])
    related = convolution(
        non_local(student, p, "nonlocal.student", steps), p["nonlocal.adapter.weight"], p["nonlocal.adapter.bias"]
    )
    return {
        "feature": math.sqrt((mask * (adapted - teacher) ** 2).sum()),
        "channel": math.sqrt(((channel - teacher.mean(axis=(2, 3))) ** 2).sum()),
        "spatial": math.sqrt(((spatial - teacher.mean(axis=1, keepdims=True)) ** 2).sum()),
        "nonlocal": math.sqrt(((related - non_local(teacher, p, "nonlocal.teacher", steps)) ** 2).sum()),
    }
