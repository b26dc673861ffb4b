"""FRS's formula in plain numpy, position by position, double precision."""

from __future__ import annotations

import math

import numpy as np


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def level_terms(
    student: np.ndarray, teacher: np.ndarray, logits: np.ndarray, teacher_logits: np.ndarray
) -> tuple[float, float]:
    """The feature and the class term of one level, unweighted: features ``[N, C, H, W]``, logits ``[N, H W, A K]``."""
    images, _, _, width = student.shape
    feature = entropy = share = 0.0
    for n in range(images):
        for p in range(logits.shape[1]):
            y, x = divmod(p, width)
            targets = [sigmoid(z) for z in teacher_logits[n, p].tolist()]
            score = max(targets)
            share += score
            feature += score * float(((student[n, :, y, x] - teacher[n, :, y, x]) ** 2).sum())
            for z, target in zip(logits[n, p].tolist(), targets, strict=True):
                entropy -= score * (target * math.log(sigmoid(z)) + (1 - target) * math.log(1 - sigmoid(z)))
    return feature / share, entropy / share
