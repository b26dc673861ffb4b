"""BCKD's formula in plain numpy, prediction by prediction, double precision."""

from __future__ import annotations

import numpy as np

from support.oracles.crosskd import class_divergence, count, overlaps, sigmoid


def bckd(
    student: dict[str, np.ndarray],
    teacher: dict[str, np.ndarray],
    labels: np.ndarray,
    label_weights: np.ndarray,
    level_of: list[int],
    classes: int,
    all_levels: bool,
) -> dict[str, float]:
    """The unweighted terms; ``level_of`` says on which level each prediction lies."""
    cls = box = 0.0
    alive = {level_of[p] for n, p in np.ndindex(labels.shape) if labels[n, p] < classes}
    for n, p in np.ndindex(labels.shape):
        if level_of[p] not in alive and not all_levels:
            continue
        own, theirs = student["logits"][n, p], teacher["logits"][n, p]
        gap = max(abs(sigmoid(x) - sigmoid(z)) for x, z in zip(own.tolist(), theirs.tolist(), strict=True))
        cls += label_weights[n, p] * class_divergence(own, theirs)
        box += label_weights[n, p] * gap * (1 - overlaps(student["boxes"][n, p], teacher["boxes"][n, p])[1])
    total = count(labels < classes)
    return {"cls": cls / total, "box": box / total}
