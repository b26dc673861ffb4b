"""CanKD with its matrix of positions by keys, in plain numpy, float64; features are ``[N, C, H, W]``."""

from __future__ import annotations

import numpy as np

from support.oracles.fkd import pooled
from support.oracles.mgd import convolution


def instance_norm(features, eps=1e-5):
    out = np.zeros_like(features)
    for n, c in np.ndindex(features.shape[:2]):
        values = features[n, c]
        out[n, c] = (values - values.mean()) / np.sqrt(((values - values.mean()) ** 2).mean() + eps)
    return out


def batch_norm(features, gain, shift, eps=1e-5):
    out = np.zeros_like(features)
    for c in range(features.shape[1]):
        values = features[:, c]
        standard = (values - values.mean()) / np.sqrt(((values - values.mean()) ** 2).mean() + eps)
        out[:, c] = gain[c] * standard + shift[c]
    return out


def helped(student, teacher, p, pool=2):
    """z; ``p``: parameters by the names of the block's modules."""
    query = convolution(student, p["theta.weight"], p["theta.bias"])
    keys, values = (
        pooled(convolution(teacher, p[f"{name}.weight"], p[f"{name}.bias"]), (pool, pool)) for name in ("phi", "g")
    )
    found = np.zeros_like(query)
    for n in range(len(student)):
        a = query[n].reshape(query.shape[1], -1).T @ keys[n].reshape(keys.shape[1], -1) / keys[n, 0].size
        found[n] = (a @ values[n].reshape(values.shape[1], -1).T).T.reshape(query.shape[1:])
    return student + batch_norm(convolution(found, p["out.weight"], None), p["norm.weight"], p["norm.bias"])


def cankd(student, teacher, p):
    """One level, without its weight."""
    return ((instance_norm(helped(student, teacher, p)) - instance_norm(teacher)) ** 2).mean() / 2
