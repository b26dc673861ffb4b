"""DIST row by row and column by column, in float64; maps are logits ``[N, A C, H, W]``."""

from __future__ import annotations

import math

import numpy as np


def correlation(a, b):
    a, b = ([value - sum(values) / len(values) for value in values] for values in (a, b))
    along = sum(x * y for x, y in zip(a, b, strict=True))
    return along / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)) + 1e-8)


def dist(student, teacher):
    """The two terms of one level."""
    tables = []
    for maps in (student, teacher):
        rows = [maps[n, :, y, x] for n, y, x in np.ndindex(maps.shape[0], *maps.shape[2:])]
        tables.append(1 / (1 + np.exp(-np.array(rows))))
    inter = [correlation(s, t) for s, t in zip(*tables, strict=True)]
    intra = [correlation(s, t) for s, t in zip(tables[0].T, tables[1].T, strict=True)]
    return 1 - sum(inter) / len(inter), 1 - sum(intra) / len(intra)
