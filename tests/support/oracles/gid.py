"""GID's selection, pooling and terms in plain numpy, instance by instance, double precision."""

from __future__ import annotations

import math

import numpy as np

from support.oracles.fgfi import iou
from support.oracles.frs import sigmoid


def instances(
    student: dict[str, np.ndarray],
    teacher: dict[str, np.ndarray],
    valid: np.ndarray,
    image_size: tuple[int, int],
    candidates: int = 3000,
    keep: int = 10,
    min_side: float = 10.0,
    nms_iou: float = 0.3,
) -> np.ndarray:
    """One image: ``logits [P A, K]``, ``boxes [P A, 4]`` of both, valid ``[P A]`` -> ``[n, 4]``."""
    found = []
    for i in range(len(valid)):
        own, theirs = sigmoid(student["logits"][i].max()), sigmoid(teacher["logits"][i].max())
        if valid[i]:
            found.append((abs(theirs - own), (teacher if theirs > own else student)["boxes"][i]))
    found.sort(key=lambda pair: -pair[0])
    height, width = image_size
    kept: list[np.ndarray] = []
    for _, box in found[:candidates]:
        box = np.array(
            [np.clip(v, 0, limit) for v, limit in zip(box, (width, height) * 2, strict=True)], dtype=np.float64
        )
        if min(box[2] - box[0], box[3] - box[1]) > min_side and all(iou(box, other) <= nms_iou for other in kept):
            kept.append(box)
    return np.array(kept[:keep]).reshape(-1, 4)


def level_of(box: np.ndarray, levels: int, finest: int, base: float) -> int:
    """detectron2's rule for levels of strides ``finest``, twice that, and so on."""
    side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return min(max(math.floor(math.log2(side / (base * finest))), 0), levels - 1)


def sample(features: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear value ``[C]`` of ``[C, H, W]``; 0 more than a cell outside."""
    _, rows, columns = features.shape
    if y < -1 or y > rows or x < -1 or x > columns:
        return np.zeros(len(features))
    y, x = min(max(y, 0.0), rows - 1.0), min(max(x, 0.0), columns - 1.0)
    top, left = min(int(y), max(rows - 2, 0)), min(int(x), max(columns - 2, 0))
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    dy, dx = y - top, x - left
    above = features[:, top, left] * (1 - dx) + features[:, top, right] * dx
    below = features[:, bottom, left] * (1 - dx) + features[:, bottom, right] * dx
    return above * (1 - dy) + below * dy


def roi_align(features: np.ndarray, box: np.ndarray, stride: int, bins: int = 10, samples: int = 2) -> np.ndarray:
    """``[C, H, W]`` to ``[C, bins, bins]``; the centre of the first cell is at half a stride."""
    x1, y1, x2, y2 = box / stride - 0.5
    result = np.zeros((len(features), bins, bins))
    for i, j in np.ndindex(bins, bins):
        for a, b in np.ndindex(samples, samples):
            y = y1 + (i + (a + 0.5) / samples) * (y2 - y1) / bins
            x = x1 + (j + (b + 0.5) / samples) * (x2 - x1) / bins
            result[:, i, j] += sample(features, y, x) / samples**2
    return result


def smooth_l1(difference: float, beta: float) -> float:
    size = abs(difference)
    return 0.5 * size**2 / beta if size < beta else size - 0.5 * beta


def relation(student: list[np.ndarray], teacher: list[np.ndarray]) -> float:
    """Of pooled features of all instances."""
    n = len(student)
    if n < 3:
        return 0.0
    both = []
    for features in (student, teacher):
        distance = np.array([[math.sqrt(((a - b) ** 2).sum()) for b in features] for a in features])
        both.append(distance / (distance.sum() / (n * n - n)))
    return sum(smooth_l1(a - b, 1.0) for a, b in zip(both[0].flat, both[1].flat, strict=True)) / (n * n - n)


def matched(anchors: np.ndarray, boxes: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """One image: anchors ``[P A, 4]``, instances ``[n, 4]``, valid ``[P A]`` -> bool ``[P A]``."""
    result = np.zeros(len(anchors), dtype=bool)
    for box in boxes:
        overlaps = [iou(anchor, box) if ok else 0.0 for anchor, ok in zip(anchors, valid, strict=True)]
        for i, overlap in enumerate(overlaps):
            # equal up to rounding: anchors that lie the same way about the box
            if overlap >= 0.5 or (overlap > 0 and overlap > max(overlaps) - 1e-9):
                result[i] = True
    return result


def deltas(box: np.ndarray, anchor: np.ndarray) -> list[float]:
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    limit = math.log(1000 / 16)
    ratios = [(box[2] - box[0]) / width, (box[3] - box[1]) / height]
    logs = [min(max(math.log(r) if r > 0 else -limit, -limit), limit) for r in ratios]
    x, y = ((a + b - c - d) / 2 for a, b, c, d in zip(box[:2], box[2:], anchor[:2], anchor[2:], strict=True))
    return [x / width, y / height, *logs]


def response(
    student: dict[str, np.ndarray],
    teacher: dict[str, np.ndarray],
    anchors: np.ndarray,
    chosen: np.ndarray,
    beta: float = 0.1,
) -> tuple[float, float]:
    """The class and the box term: ``logits [N, P A, K]``, ``boxes [N, P A, 4]``, chosen ``[N, P A]``."""
    cls = box = 0.0
    for n, a in zip(*np.nonzero(chosen), strict=True):
        for x, z in zip(student["logits"][n, a].tolist(), teacher["logits"][n, a].tolist(), strict=True):
            cls -= sigmoid(z) * math.log(sigmoid(x)) + (1 - sigmoid(z)) * math.log(1 - sigmoid(x))
        own, theirs = (deltas(side["boxes"][n, a], anchors[a]) for side in (student, teacher))
        box += sum(smooth_l1(s - t, beta) for s, t in zip(own, theirs, strict=True))
    count = max(1, int(chosen.sum()))
    return cls / count, box / count
