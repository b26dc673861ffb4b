"""CSKD value by value, in plain numpy, float64; maps are ``[N, C, H, W]``, logits ``[N, P, K]``."""

from __future__ import annotations

import math

import numpy as np

from support.oracles.crosskd import count, cross_entropy, overlaps, sigmoid


def cosine(a, b):
    lengths = [max(math.sqrt(float((v**2).sum())), 1e-6) for v in (a, b)]
    return float((a * b).sum()) / (lengths[0] * lengths[1])


def guided(student, teacher, weights, average=None):
    """D."""
    n, c, height, width = student.shape
    if not n:
        return 0.0
    across, along = np.zeros((n, c)), np.zeros((n, height, width))
    for i, k in np.ndindex(n, c):
        across[i, k] = 1 - cosine(student[i, k], teacher[i, k])
    for i, y, x in np.ndindex(n, height, width):
        along[i, y, x] = 1 - cosine(student[i, :, y, x], teacher[i, :, y, x])
    square = 0.0
    for i, k, y, x in np.ndindex(*student.shape):
        guide = abs(across[i, k] * along[i, y, x])
        square += guide * (student[i, k, y, x] - teacher[i, k, y, x]) ** 2
    if average is None:
        return weights[0] * square / student.size + weights[1] * (across.mean() + along.mean())
    if not average:
        return 0.0
    return weights[0] * square / average + weights[1] * (across.mean() + along.sum() / average)


def mask(boxes, image_size, size):
    """M_fg of one image."""
    out = np.zeros(size)
    for x1, y1, x2, y2 in boxes:
        left, right = int(x1 / image_size[1] * size[1]), int(x2 / image_size[1] * size[1])
        top, bottom = int(y1 / image_size[0] * size[0]), int(y2 / image_size[0] * size[0])
        for y, x in np.ndindex(*size):
            out[y, x] = max(out[y, x], float(top <= y <= bottom and left <= x <= right))
    return out


def sample(values, y, x):
    """Bilinear, of ``[C, H, W]`` at (y, x) in cells; nothing beyond a cell outside."""
    _, height, width = values.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(values))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = y - top, x - left
    upper = (1 - u) * values[:, top, left] + u * values[:, top, right]
    lower = (1 - u) * values[:, bottom, left] + u * values[:, bottom, right]
    return (1 - v) * upper + v * lower


def pooled(features, boxes, image_sizes, bins=7, samples=2):
    """Every object of every image, ``[G, C, bins, bins]``."""
    found = []
    for values, own, (h, w) in zip(features, boxes, image_sizes, strict=True):
        _, height, width = values.shape
        for x1, y1, x2, y2 in own:
            left, top = x1 / w * width - 0.5, y1 / h * height - 0.5
            steps = (y2 - y1) / h * height / bins, (x2 - x1) / w * width / bins
            out = np.zeros((len(values), bins, bins))
            for i, j, a, b in np.ndindex(bins, bins, samples, samples):
                y, x = top + (i + (a + 0.5) / samples) * steps[0], left + (j + (b + 0.5) / samples) * steps[1]
                out[:, i, j] += sample(values, y, x) / samples**2
            found.append(out)
    return np.array(found).reshape(-1, features.shape[1], bins, bins)


def neck(student, teacher, boxes, image_sizes, weights):
    """One level of L_neck; the student's behind its adapter."""
    inside = [mask(own, size, student.shape[2:]) for own, size in zip(boxes, image_sizes, strict=True)]
    foreground = np.stack(inside)[:, None]
    rois = [pooled(f, boxes, image_sizes) for f in (student, teacher)]
    total = guided(student, teacher, weights) + guided(*rois, weights)
    for m in (foreground, 1 - foreground):
        total += guided(student * m, teacher * m, weights, m.sum() * student.shape[1])
    return total


def soft_focal(logit, target):
    p = sigmoid(logit)
    miss = (1 - p) * target + p * (1 - target)
    return (0.25 * target + 0.75 * (1 - target)) * miss**2 * cross_entropy(logit, target)


def focal(logits, teacher, inside, label_weights, positives):
    """The assistant's class term; ``inside [N, P]``."""
    total = 0.0
    for n, p, k in np.ndindex(*logits.shape):
        target = sigmoid(teacher[n, p, k]) * inside[n, p]
        total += label_weights[n, p] * soft_focal(logits[n, p, k], target)
    return total / count(positives)


def box_around(sides):
    return np.array([-sides[0], -sides[1], sides[2], sides[3]])


def mean_bin(logits):
    share = np.exp(logits) / np.exp(logits).sum()
    return float((share * np.arange(len(logits))).sum())


def between(logits, target):
    target = min(max(target, 0), len(logits) - 1.1)
    lower = int(target)
    log_p = logits - math.log(np.exp(logits).sum())
    return -(lower + 1 - target) * log_p[lower] - (target - lower) * log_p[lower + 1]


def gfl(logits, boxes, teacher_boxes, labels, label_weights, classes):
    """The assistant's terms with distributions ``[N, P, 4, bins]``."""
    quality, box, bins, share = np.zeros(logits.shape), 0.0, 0.0, 0.0
    for n, p in np.ndindex(*labels.shape):
        if labels[n, p] < classes:
            own, target = ([mean_bin(side) for side in sides[n, p]] for sides in (boxes, teacher_boxes))
            iou, giou = overlaps(box_around(own), box_around(target))
            score = max(sigmoid(x) for x in logits[n, p])
            quality[n, p, labels[n, p]] = iou
            box += score * (1 - giou)
            bins += score * sum(between(*pair) for pair in zip(boxes[n, p], target, strict=True)) / 4
            share += score
    cls = 0.0
    for n, p, k in np.ndindex(*logits.shape):
        gap = sigmoid(logits[n, p, k]) - quality[n, p, k]
        cls += label_weights[n, p] * gap**2 * cross_entropy(logits[n, p, k], quality[n, p, k])
    share = max(share, 1)
    return {"cls": cls / count(labels < classes), "box": 2 * box / share, "distribution": 0.25 * bins / share}
