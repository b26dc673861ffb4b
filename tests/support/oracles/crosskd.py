"""CrossKD's and BCKD's formulas in plain numpy, position by position, double precision."""

from __future__ import annotations

import math

import numpy as np


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def restandardised(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """``[N, C, H, W]``; deviations of a sample (NHW - 1), as the release takes them."""
    result = np.empty(student.shape)
    for c in range(student.shape[1]):
        s, t = student[:, c].astype(float), teacher[:, c].astype(float)
        result[:, c] = (s - s.mean()) / (s.std(ddof=1) + 1e-6) * t.std(ddof=1) + t.mean()
    return result


def class_divergence(logits: np.ndarray, teacher: np.ndarray) -> float:
    """One position, ``[C]``."""
    total = 0.0
    for x, z in zip(logits.tolist(), teacher.tolist(), strict=True):
        p, y = sigmoid(x), sigmoid(z)
        total += abs(p - y) * -(y * math.log(p) + (1 - y) * math.log(1 - p))
    return total


def distribution_divergence(logits: np.ndarray, teacher: np.ndarray) -> float:
    """One position, ``[4, bins]``: KL(teacher || student) summed over bins, averaged over sides."""
    total = 0.0
    for x, z in zip(logits.astype(float), teacher.astype(float), strict=True):
        p, q = np.exp(x) / np.exp(x).sum(), np.exp(z) / np.exp(z).sum()
        total += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)) / 4
    return total


def overlaps(box: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """IoU and GIoU of two boxes."""
    a, b = box.tolist(), other.tolist()
    inner = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return inner / union, inner / union - (hull - union) / hull


def cross_entropy(logit: float, target: float) -> float:
    return -target * math.log(sigmoid(logit)) - (1 - target) * math.log(1 - sigmoid(logit))


def count(weights: np.ndarray) -> float:
    return max(1.0, float(weights.sum()))


def crosskd(
    cross: dict[str, np.ndarray],
    teacher: dict[str, np.ndarray],
    labels: np.ndarray,
    label_weights: np.ndarray,
    classes: int,
    box_loss: str,
    normaliser: float,
) -> dict[str, float]:
    """The unweighted terms of ``logits``, ``boxes``, ``distributions`` and ``quality`` of ``[N, P]`` predictions."""
    cls = box = share = quality = 0.0
    for i in np.ndindex(labels.shape):
        cls += label_weights[i] * class_divergence(cross["logits"][i], teacher["logits"][i])
        weight = sigmoid(teacher["logits"][i].max()) if label_weights[i] > 0 else 0.0
        share += weight
        if box_loss == "kl":
            box += weight * distribution_divergence(cross["distributions"][i], teacher["distributions"][i])
        else:
            iou, giou = overlaps(cross["boxes"][i], teacher["boxes"][i])
            box += weight * (1 - giou if box_loss == "giou" else -math.log(max(iou, 1e-6)))
        if "quality" in cross and labels[i] < classes:
            quality += cross_entropy(cross["quality"][i], sigmoid(teacher["quality"][i]))
    terms = {"cls": cls / normaliser, "box": box / (share if box_loss == "kl" else normaliser)}
    return {**terms, "quality": quality / normaliser} if "quality" in cross else terms
