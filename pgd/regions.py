"""Key predictive regions: where inside a box the teacher predicts well, as weights over all positions of the pyramid.

Pure tensor functions. P positions over all levels, G boxes, C classes; boxes xyxy in input pixels, centres (x, y).
Source: PGD sections 3.1 and 3.2; ``released=True`` reproduces the order of steps of the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pgd.dense import Level

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


class Pairs(NamedTuple):
    """Which position lies in which box: M pairs of indices, two tensors ``[M]`` ordered by box."""

    position: Tensor
    box: Tensor


def inside_pairs(centers: Tensor, gt_boxes: Tensor, levels: Sequence[Level] | None = None) -> Pairs:
    """All pairs for which :func:`inside` holds.

    With ``levels``, which must describe ``centers``, only the rectangle of rows and columns that a box covers is
    looked at: an object of 100 x 100 pixels covers some 200 of the 22,300 positions of a 1333 x 800 image.
    """
    if levels is None:
        box, position = inside(centers, gt_boxes).T.nonzero().unbind(dim=1)
        return Pairs(position, box)
    device = gt_boxes.device
    # boxes [G, 1] against levels [L]; one row or column more on each side, for rounding
    left, top, stride = (gt_boxes.new_tensor([getattr(lv, key) for lv in levels]) for key in ("left", "top", "stride"))
    start, height, width = (
        torch.tensor([getattr(lv, key) for lv in levels], device=device) for key in ("start", "height", "width")
    )
    zero = torch.zeros_like(width)

    def span(low: Tensor, high: Tensor, origin: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.floor((low[:, None] - origin) / stride).long().clamp(min=zero)
        last = torch.ceil((high[:, None] - origin) / stride).long().clamp(max=size - 1)
        return first, (last - first + 1).clamp(min=0)

    first_column, columns = span(gt_boxes[:, 0], gt_boxes[:, 2], left, width)
    first_row, rows = span(gt_boxes[:, 1], gt_boxes[:, 3], top, height)
    count = (rows * columns).flatten()
    ends = count.cumsum(0)
    which = torch.repeat_interleave(torch.arange(count.numel(), device=device), count)
    offset = torch.arange(which.numel(), device=device) - (ends - count)[which]
    row = torch.div(offset, columns.flatten()[which], rounding_mode="floor")
    column = offset - row * columns.flatten()[which]
    corner = (start + first_row * width + first_column).flatten()
    position = corner[which] + row * width.repeat(gt_boxes.size(0))[which] + column
    box = torch.div(which, len(levels), rounding_mode="floor")
    center, edges = centers[position], gt_boxes[box]
    keep = torch.minimum(center - edges[:, :2], edges[:, 2:] - center).amin(dim=1) > _EDGE
    return Pairs(position[keep], box[keep])


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


def _raw_quality(scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, xi: float) -> Tensor:
    return scores[:, gt_labels] ** (1 - xi) * pairwise_iou(boxes, gt_boxes) ** xi


class PairQuality(NamedTuple):
    """Quality of in-box predictions on a log scale, where every ``xi`` is one weighted sum: ``[M]`` each."""

    log_score: Tensor
    log_iou: Tensor

    @classmethod
    def of(cls, scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, pairs: Pairs) -> PairQuality:
        """Arguments as for :func:`quality`."""
        theirs, own = boxes[pairs.position], gt_boxes[pairs.box]
        overlap = torch.minimum(theirs[:, 2:], own[:, 2:]) - torch.maximum(theirs[:, :2], own[:, :2])
        overlap = overlap.clamp(min=0).prod(dim=1)
        area = (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(dim=1)[pairs.box] + (theirs[:, 2:] - theirs[:, :2]).prod(dim=1)
        iou = overlap / (area - overlap).clamp(min=1e-6)
        score = scores[pairs.position, gt_labels[pairs.box]]
        # a floor far below any quality that matters keeps zeros comparable
        floor = torch.finfo(torch.float32).tiny
        return cls(score.float().clamp(min=floor).log(), iou.float().clamp(min=floor).log())

    def top(self, pairs: Pairs, objects: int, xi: float, topk: int) -> tuple[Tensor, Tensor]:
        """The best ``topk`` positions of each box: indices ``[K, G]`` and whether they exist, bool ``[K, G]``."""
        log_quality = (1 - xi) * self.log_score + xi * self.log_iou
        # stable by box after by quality: each box's pairs stand together, best first
        order = log_quality.argsort(descending=True, stable=True)
        order = order[pairs.box[order].argsort(stable=True)]
        box = pairs.box[order]
        count = torch.bincount(box, minlength=objects)
        rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[box]
        best = rank < topk
        index = order.new_zeros(topk, objects)
        exists = torch.zeros_like(index, dtype=torch.bool)
        index[rank[best], box[best]] = pairs.position[order[best]]
        exists[rank[best], box[best]] = True
        return index, exists


def gaussian_weights(points: Tensor, valid: Tensor, ridge: float | None, jitter: float = 0.0) -> Tensor:
    """Weights ``exp(-1/2 d' S^-1 d)`` of point sets, each under its maximum-likelihood Gaussian (PGD section 3.2).

    Args:
        points: ``[K, G, 2]``, K candidate points for each of G sets.
        valid: ``[K, G]`` which of them belong to the set.
        ridge: added to the covariance's diagonal (px^2); None: ``adj(S) / (det S + 1e-10)`` as released.
        jitter: half-width of uniform noise (px) on the points that the Gaussian is fitted to, as released (0.05).

    Returns:
        ``[K, G]`` in 0..1, zero where not valid; a set of a single point has weight 1.
    """
    # In double: the determinant of a nearly straight set of points is a difference of two large numbers.
    dtype, points = points.dtype, points.double()
    member = valid.double()
    count = member.sum(dim=0)
    noisy = points + jitter * (2 * torch.rand_like(points) - 1) if jitter else points
    mean = (noisy * member[..., None]).sum(dim=0) / count.clamp(min=1)[:, None]
    spread = (noisy - mean) * member[..., None]
    cov = torch.einsum("kgi,kgj->gij", spread, spread) / count.clamp(min=1)[:, None, None]
    offset = (points - mean) * member[..., None]
    a, b, d = cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]
    if ridge is None:
        det = a * d - b * b + 1e-10
    else:
        a, d = a + ridge, d + ridge
        det = a * d - b * b
    x, y = offset.unbind(dim=-1)
    distance = (d * x * x - 2 * b * x * y + a * y * y) / det
    return (torch.exp(-0.5 * distance) * member).to(dtype)


def _heaviest(weights: Tensor, index: Tensor, count: int) -> Tensor:
    """The largest of the ``weights [K, G]`` that fall on each of ``count`` positions; zero where none does."""
    return weights.new_zeros(count).scatter_reduce(0, index.flatten(), weights.flatten(), reduce="amax")


def prediction_guided_weights(
    scores: Tensor,
    boxes: Tensor,
    centers: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    xi: float,
    topk: int,
    released: bool = False,
    swap_axes: bool = False,
    jitter: float = 0.0,
) -> Tensor:
    """The weight of every position: the Gaussian of each box's top-K positions, largest over boxes (PGD section 3.2).

    By default the in-box test comes before top-K, so that fewer than K in-box positions mean a smaller K, and the
    covariance gets a small fixed ridge. ``released=True``: top-K over all positions first, in-box test after the fit,
    no ridge. The release also draws noise of ``jitter`` = 0.05 pixels for the fit, and for FCOS and AutoAssign tests
    the transposed position (``swap_axes``).

    Shapes as in :func:`quality`. Returns ``[P]`` in 0..1; zeros when there are no boxes.
    """
    if gt_boxes.size(0) == 0 or centers.size(0) == 0:
        return centers.new_zeros(centers.size(0))
    tested = centers.flip(1) if swap_axes else centers
    if not released:
        pairs = inside_pairs(tested, gt_boxes)
        values = PairQuality.of(scores, boxes, gt_boxes, gt_labels, pairs)
        return weights_of_pairs(values, pairs, centers, gt_boxes.size(0), xi, topk, jitter)
    best, index = _raw_quality(scores, boxes, gt_boxes, gt_labels, xi).topk(min(topk, centers.size(0)), dim=0)
    exists = torch.ones_like(best, dtype=torch.bool)
    weights = gaussian_weights(centers[index], exists, ridge=None, jitter=jitter)
    return _heaviest(weights * inside(tested, gt_boxes).gather(0, index), index, centers.size(0))


def weights_of_pairs(
    values: PairQuality, pairs: Pairs, centers: Tensor, objects: int, xi: float, topk: int, jitter: float = 0.0
) -> Tensor:
    """:func:`prediction_guided_weights` by default, for in-box pairs that are known already (``objects`` = G)."""
    index, exists = values.top(pairs, objects, xi, topk)
    weights = gaussian_weights(centers[index], exists, RIDGE, jitter)
    return _heaviest(weights, index, centers.size(0))


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
