"""Key predictive regions: where inside a box the teacher predicts well, as weights over all positions of the pyramid.

Pure tensor functions. P positions over all levels, G boxes, C classes; boxes xyxy in input pixels, centres (x, y).
Source: PGD sections 3.1 and 3.2; ``released=True`` reproduces the order of steps of the released code.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Added to the diagonal of a position covariance, in px^2. The released code adds noise of +-0.05 px to the positions
#: instead, whose variance is 0.05^2 / 3 = 8.3e-4: the same regularisation without the dice.
RIDGE = 1e-3
_EDGE = 1e-10


def inside(centers: Tensor, gt_boxes: Tensor) -> Tensor:
    """Which centres ``[P, 2]`` lie strictly inside which boxes ``[G, 4]`` -> bool ``[P, G]``."""
    low = centers[:, None] - gt_boxes[None, :, :2]
    high = gt_boxes[None, :, 2:] - centers[:, None]
    return torch.cat((low, high), dim=-1).amin(dim=-1) > _EDGE


def pairwise_iou(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """IoU of boxes ``[P, 4]`` and ``[G, 4]`` -> ``[P, G]``; boxes without area give 0."""
    low = torch.maximum(boxes[:, None, :2], gt_boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], gt_boxes[None, :, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)[:, None] + (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(dim=-1)
    return overlap / (area - overlap).clamp(min=1e-6)


def _raw_quality(scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, xi: float) -> Tensor:
    return scores[:, gt_labels] ** (1 - xi) * pairwise_iou(boxes, gt_boxes) ** xi


def quality(scores: Tensor, boxes: Tensor, centers: Tensor, gt_boxes: Tensor, gt_labels: Tensor, xi: float) -> Tensor:
    """Prediction quality ``q = 1[inside] p^(1-xi) IoU^xi`` of every position for every box (PGD eq. 1).

    Args:
        scores: ``[P, C]`` class probabilities.
        boxes: ``[P, 4]`` predicted boxes.
        centers: ``[P, 2]`` positions.
        gt_boxes: ``[G, 4]``.
        gt_labels: ``[G]`` class indices.
        xi: balance of localisation against classification, 0..1.

    Returns:
        ``[P, G]``, zero outside the box.
    """
    return _raw_quality(scores, boxes, gt_boxes, gt_labels, xi) * inside(centers, gt_boxes)


def gaussian_weights(points: Tensor, valid: Tensor, ridge: float | None) -> Tensor:
    """Weights ``exp(-1/2 d' S^-1 d)`` of point sets, each under its maximum-likelihood Gaussian (PGD section 3.2).

    Args:
        points: ``[K, G, 2]``, K candidate points for each of G sets.
        valid: ``[K, G]`` which of them belong to the set.
        ridge: added to the covariance's diagonal (px^2); None: ``adj(S) / (det S + 1e-10)`` as released.

    Returns:
        ``[K, G]`` in 0..1, zero where not valid; a set of a single point has weight 1.
    """
    # In double: the determinant of a nearly straight set of points is a difference of two large numbers.
    dtype, points = points.dtype, points.double()
    member = valid.double()
    count = member.sum(dim=0)
    mean = (points * member[..., None]).sum(dim=0) / count.clamp(min=1)[:, None]
    offset = (points - mean) * member[..., None]
    cov = torch.einsum("kgi,kgj->gij", offset, offset) / count.clamp(min=1)[:, None, None]
    a, b, d = cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]
    if ridge is None:
        det = a * d - b * b + 1e-10
    else:
        a, d = a + ridge, d + ridge
        det = a * d - b * b
    x, y = offset.unbind(dim=-1)
    distance = (d * x * x - 2 * b * x * y + a * y * y) / det
    return (torch.exp(-0.5 * distance) * member).to(dtype)


def prediction_guided_weights(
    scores: Tensor,
    boxes: Tensor,
    centers: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    xi: float,
    topk: int,
    released: bool = False,
) -> Tensor:
    """The weight of every position: the Gaussian of each box's top-K positions, largest over boxes (PGD section 3.2).

    By default the in-box test comes before top-K, so that fewer than K in-box positions mean a smaller K, and the
    covariance gets a small fixed ridge. ``released=True``: top-K over all positions first, in-box test after the fit,
    no ridge (and no jitter, which the released code draws anew at each call).

    Shapes as in :func:`quality`. Returns ``[P]`` in 0..1; zeros when there are no boxes.
    """
    weights = centers.new_zeros(centers.size(0))
    if gt_boxes.size(0) == 0 or centers.size(0) == 0:
        return weights
    within = inside(centers, gt_boxes)
    rank = _raw_quality(scores, boxes, gt_boxes, gt_labels, xi)
    if not released:
        rank = rank.masked_fill(~within, -1.0)
    best, index = rank.topk(min(topk, centers.size(0)), dim=0)
    valid = torch.ones_like(best, dtype=torch.bool) if released else best >= 0
    per_box = gaussian_weights(centers[index], valid, None if released else RIDGE)
    if released:
        per_box = per_box * within.gather(0, index)
    return weights.scatter_reduce(0, index.flatten(), per_box.flatten(), reduce="amax")


def background_mask(centers: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 where a position lies strictly inside no box, else 0 -> ``[P]``."""
    return (~inside(centers, gt_boxes).any(dim=1)).to(centers.dtype)


def top_fraction(quality: Tensor, fraction: float) -> Tensor:
    """The best ``fraction`` of each box's positions (those of quality > 0), at least one -> bool ``[P, G]``."""
    available = (quality > 0).sum(dim=0)
    # The small step back keeps 60% of 25 at 15 in spite of rounding.
    wanted = (available.double() * fraction - 1e-9).ceil().long().clamp(min=1)
    keep = torch.minimum(wanted, available)
    order = quality.argsort(dim=0, descending=True)
    rank = torch.empty_like(order).scatter_(
        0, order, torch.arange(quality.size(0), device=quality.device)[:, None].expand_as(order)
    )
    return rank < keep
