"""PKD value by value in plain Python; features are ``[N, C, H, W]``."""

from __future__ import annotations

import math


def pkd(student, teacher):
    total = 0.0
    for channel in range(teacher.shape[1]):
        standard = []
        for features in (student, teacher):
            values = features[:, channel].ravel()
            mean = sum(values) / len(values)
            deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
            standard.append([(v - mean) / (deviation + 1e-6) for v in values])
        total += sum((s - t) ** 2 for s, t in zip(*standard, strict=True))
    return total / teacher.size / 2
