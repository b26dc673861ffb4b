"""PGD as released (commit 81c54d5; docs/deviations.md), image by image, box by box: numpy in double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

EDGE = 1e-10


@dataclass(frozen=True)
class Image:
    """What the release weighs an image's positions by."""

    #: class probabilities ``[P, C]`` and boxes ``[P, 4]`` of the teacher
    scores: np.ndarray
    boxes: np.ndarray
    #: ground truth ``[G, 4]`` and ``[G]``
    objects: np.ndarray
    labels: np.ndarray
    #: positions that are not padding, bool ``[P]``; None: the head does not ask
    valid: np.ndarray | None


def iou(boxes: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Of ``[P, 4]`` with one box."""
    low, high = np.maximum(boxes[:, :2], gt[:2]), np.minimum(boxes[:, 2:], gt[2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.prod(gt[2:] - gt[:2])
    return overlap / np.maximum(sum(areas) - overlap, 1e-6)


def in_box(centers: np.ndarray, gt: np.ndarray, swapped: bool) -> np.ndarray:
    """B2: the first coordinate is taken for y."""
    x, y = centers.T[::-1] if swapped else centers.T
    return np.minimum.reduce([x - gt[0], y - gt[1], gt[2] - x, gt[3] - y]) > EDGE


def weights(
    image: Image, centers: np.ndarray, xi: float, topk: int, swapped: bool, noise: Callable[[], np.ndarray]
) -> np.ndarray:
    """W of one image, ``[P]``; ``noise`` gives B5's for all boxes of one coordinate, ``[K, G]``."""
    places = np.arange(len(centers)) if image.valid is None else np.flatnonzero(image.valid)
    # as drawn: x of all boxes, then y
    dice = np.stack([noise(), noise()], axis=-1)
    found = np.zeros(len(centers))
    for g, (gt, label) in enumerate(zip(image.objects, image.labels, strict=True)):
        quality = image.scores[places, label] ** (1 - xi) * iou(image.boxes[places], gt) ** xi
        order = np.argsort(-quality)[:topk]
        assert quality[order[-1]] > 0, "which of many zeros are taken is not defined"
        best = places[order]
        noisy = centers[best] + dice[:, g]
        mean = noisy.mean(axis=0)
        (a, b), (_, d) = (noisy - mean).T @ (noisy - mean) / topk
        inverse = np.array([[d, -b], [-b, a]]) / (a * d - b * b + 1e-10)
        away = centers[best] - mean
        own = np.exp(-0.5 * np.einsum("ki,ij,kj->k", away, inverse, away)) * in_box(centers[best], gt, swapped)
        found[best] = np.maximum(found[best], own)
    return found


def background(image: Image, centers: np.ndarray, swapped: bool) -> np.ndarray:
    """B of one image, ``[P]``."""
    outside = ~np.any([in_box(centers, gt, swapped) for gt in image.objects], axis=0)
    return (outside if image.valid is None else outside & image.valid).astype(float)


def softmax(values: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def attention(features: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """P ``[H W]`` and A ``[C, H W]`` of ``[C, H W]``."""
    size = np.abs(features) / temperature
    return features.shape[1] * softmax(size.mean(axis=0), 0), features.shape[0] * softmax(size, 0)


def cls_loss(
    student: np.ndarray, teacher: np.ndarray, foreground: np.ndarray, behind: np.ndarray, of: dict, level_weight: float
) -> float:
    """L_cls of a level: features ``[N, C, H W]``, masks ``[N, H W]``. B1: every mask weighs every image."""
    images, _, positions = student.shape
    masks = [m / np.maximum((m != 0).sum(axis=1, keepdims=True), EDGE) for m in (foreground, behind)]
    total = 0.0
    for j in range(images):
        spatial, channel = attention(teacher[j], of["temperature"])
        own_spatial, own_channel = attention(student[j], of["temperature"])
        distance = (spatial * channel * (student[j] - teacher[j]) ** 2).sum(axis=0)
        for i in range(images):
            for weight, mask in zip((of["alpha"], of["beta"]), masks, strict=True):
                total += level_weight * weight * (mask[i] * distance).sum() / images
        total += of["delta"] * np.abs(own_channel - channel).sum() / (images * positions)
        total += of["delta"] * np.abs(own_spatial - spatial).sum() / images
    return total


def reg_loss(student: np.ndarray, teacher: np.ndarray, foreground: np.ndarray, of: dict) -> float:
    """L_reg of a level: over the foreground of all images together."""
    terms = []
    for n, p in zip(*np.nonzero(foreground), strict=True):
        s, t = student[n, :, p], teacher[n, :, p]
        channel, own = (len(f) * softmax(np.abs(f) / of["temperature"], 0) for f in (t, s))
        feature = of["gamma"] * foreground[n, p] * (channel * (s - t) ** 2).mean()
        terms.append(feature + of["delta"] * np.abs(own - channel).sum())
    return float(np.mean(terms)) if terms else 0.0


def losses(
    levels: Sequence[Sequence[np.ndarray]],
    images: Sequence[Image],
    centers: np.ndarray,
    of: dict,
    swapped: bool,
    noise: Callable[[], np.ndarray],
) -> tuple[float, float]:
    """L_cls and L_reg of a batch.

    Args:
        levels: of each level the features ``[N, C, H W]`` of student and teacher, of both towers in turn.
        images: of the batch.
        centers: ``[P, 2]``, level after level.
        of: settings alpha, beta, gamma, delta, temperature, topk, xis and level_weights.
        swapped: B2.
        noise: see :func:`weights`.
    """
    by_branch = [[weights(im, centers, xi, of["topk"], swapped, noise) for xi in of["xis"]] for im in images]
    cls, reg = (np.stack(maps) for maps in zip(*by_branch, strict=True))
    behind = np.stack([background(image, centers, swapped) for image in images])
    ends = np.cumsum([level[0].shape[2] for level in levels])[:-1]
    parts = zip(levels, *(np.split(m, ends, axis=1) for m in (cls, reg, behind)), of["level_weights"], strict=True)
    totals = [0.0, 0.0]
    for (cls_s, cls_t, reg_s, reg_t), cls_map, reg_map, outside, level_weight in parts:
        totals[0] += cls_loss(cls_s, cls_t, cls_map, outside, of, level_weight)
        totals[1] += reg_loss(reg_s, reg_t, reg_map, of)
    return totals[0], totals[1]


def decoded(centers: np.ndarray, logits: np.ndarray, stride: float) -> np.ndarray:
    """GFL's boxes from distributions ``[P, 4, bins]``. B3: one stride for all levels of an image."""
    sides = softmax(logits, 2) @ np.arange(logits.shape[2]) * stride
    return np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], axis=1)
