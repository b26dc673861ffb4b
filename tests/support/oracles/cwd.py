"""Channel-wise distillation channel by channel in plain numpy, float64; maps are ``[N, C, H, W]``."""

from __future__ import annotations

import math

import numpy as np


def softmax(values):
    shifted = [math.exp(v - max(values)) for v in values]
    total = sum(shifted)
    return [s / total for s in shifted]


def cwd(student, teacher, tau, cross_entropy=False):
    n, c = teacher.shape[:2]
    total = 0.0
    for image in range(n):
        for channel in range(c):
            q = softmax([v / tau for v in teacher[image, channel].ravel()])
            p = softmax([v / tau for v in student[image, channel].ravel()])
            for q_i, p_i in zip(q, p, strict=True):
                total += q_i * ((0 if cross_entropy else math.log(q_i)) - math.log(p_i))
    return tau**2 * total / (n * c)


def class_maps(logits, sizes, per_position):
    """Maps of every level from ``[N, P A, C]``: position by position, prediction by prediction, class by class."""
    n, _, classes = logits.shape
    maps, row = [], 0
    for height, width in sizes:
        level = np.zeros((n, per_position * classes, height, width))
        for y in range(height):
            for x in range(width):
                for a in range(per_position):
                    level[:, a * classes : (a + 1) * classes, y, x] = logits[:, row]
                    row += 1
        maps.append(level)
    return maps
