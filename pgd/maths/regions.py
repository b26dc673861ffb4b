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
#: What stands for a zero on a log scale, and its logarithm rounded up.
_FLOOR = torch.finfo(torch.float32).tiny
_LOG_FLOOR = -87.3


def inside(centers: Tensor, gt_boxes: Tensor) -> Tensor:
    """Which centres ``[P, 2]`` lie strictly inside which boxes ``[G, 4]`` -> bool ``[P, G]``."""
    low = centers[:, None] - gt_boxes[None, :, :2]
    high = gt_boxes[None, :, 2:] - centers[:, None]
    return torch.cat((low, high), dim=-1).amin(dim=-1) > _EDGE


def _intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Common area of boxes ``[P, 4]`` and ``[G, 4]`` -> ``[P, G]``."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)


def pairwise_iof(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection of boxes ``[P, 4]`` and ``[G, 4]`` over the area of the former -> ``[P, G]``."""
    return _intersection(boxes, others) / _area(boxes)[:, None].clamp(min=1e-6)


def pairwise_iou(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """IoU of boxes ``[P, 4]`` and ``[G, 4]`` -> ``[P, G]``; boxes without area give 0."""
    overlap = _intersection(boxes, gt_boxes)
    union = _area(boxes)[:, None] + _area(gt_boxes) - overlap
    return overlap / union.clamp(min=1e-6)


class Predictions(NamedTuple):
    """What a detector predicts on an image, or on several one after the other: P predictions."""

    #: ``[P, C]`` class probabilities
    scores: Tensor
    #: ``[P, 4]`` predicted boxes
    boxes: Tensor
    #: ``[P, 2]`` positions (x, y), input pixels
    centers: Tensor
    #: ``[P]`` strides of their levels, pixels; where they are needed
    strides: Tensor | None = None


class Objects(NamedTuple):
    """The ground truth of an image, or of several one after the other: G objects."""

    #: ``[G, 4]``
    boxes: Tensor
    #: ``[G]`` class indices
    labels: Tensor


class Pairs(NamedTuple):
    """Which position lies in which box: M pairs of indices, two tensors ``[M]`` ordered by box."""

    position: Tensor
    box: Tensor

    def repeated(self, times: int) -> Pairs:
        """Pairs of positions to pairs of the predictions that stand there, ``times`` of them side by side."""
        if times == 1:
            return self
        each = torch.arange(times, device=self.position.device)
        return Pairs((self.position[:, None] * times + each).flatten(), self.box.repeat_interleave(times))


def inside_pairs(centers: Tensor, gt_boxes: Tensor, levels: Sequence[Level] | None = None) -> Pairs:
    """All pairs for which :func:`inside` holds.

    With ``levels``, which must describe ``centers``, rows and columns are tested instead of positions: an object of
    100 x 100 pixels covers some 200 of the 22,300 positions of a 1333 x 800 image.
    """
    if levels is None:
        box, position = inside(centers, gt_boxes).T.nonzero().unbind(dim=1)
        return Pairs(position, box)
    device, heights, widths = centers.device, [lv.height for lv in levels], [lv.width for lv in levels]
    # the columns of all levels, one after the other, then their rows and the position that each of these starts at
    x = torch.cat([centers[lv.start : lv.start + lv.width, 0] for lv in levels])
    starts = torch.cat([torch.arange(lv.start, lv.start + lv.height * lv.width, lv.width) for lv in levels]).to(device)
    y = centers[:, 1].index_select(0, starts)
    right_of, left_of = x - gt_boxes[:, :1] > _EDGE, gt_boxes[:, 2:3] - x > _EDGE
    in_row = torch.minimum(y - gt_boxes[:, 1:2], gt_boxes[:, 3:] - y) > _EDGE

    def counted(columns: Tensor) -> Tensor:
        """Marks ``[G, columns]`` counted by level, at every row of the level: ``[G, rows]``."""
        counts = [part.sum(dim=1, keepdim=True) for part in columns.split(widths, dim=1)]
        return torch.cat([c.expand(-1, height) for c, height in zip(counts, heights, strict=True)], dim=1)

    # in each row a box holds ``count`` positions from ``first`` on
    count = counted(right_of & left_of) * in_row
    first = (starts + counted(~right_of)).flatten()
    box = torch.repeat_interleave(count.sum(dim=1))
    count = count.flatten()
    shift = torch.repeat_interleave(first + count - count.cumsum(0), count, output_size=len(box))
    return Pairs(shift + torch.arange(len(box), device=device), box)


def inside_pairs_of_images(centers: Tensor, gt_boxes: Sequence[Tensor], levels: Sequence[Level]) -> Pairs:
    """:func:`inside_pairs` of a batch whose images follow one another: positions ``[N P]``, boxes ``[sum G]``."""
    pairs = inside_pairs(centers, torch.cat(list(gt_boxes)), levels)
    if len(gt_boxes) == 1:
        return pairs
    before = [pairs.box.new_full((len(boxes),), i * len(centers)) for i, boxes in enumerate(gt_boxes)]
    return Pairs(pairs.position + torch.cat(before).index_select(0, pairs.box), pairs.box)


def quality(predictions: Predictions, objects: Objects, xi: float) -> Tensor:
    """Prediction quality ``q = 1[inside] p^(1-xi) IoU^xi`` of every prediction for every object (PGD eq. 1).

    Args:
        predictions: P of them.
        objects: G of them.
        xi: balance of localisation against classification, 0..1.

    Returns:
        ``[P, G]``, zero outside the box.
    """
    return _raw_quality(predictions, objects, xi) * inside(predictions.centers, objects.boxes)


def _raw_quality(predictions: Predictions, objects: Objects, xi: float) -> Tensor:
    return predictions.scores[:, objects.labels] ** (1 - xi) * pairwise_iou(predictions.boxes, objects.boxes) ** xi


class PairQuality(NamedTuple):
    """Quality of in-box predictions on a log scale, where every ``xi`` is one weighted sum: ``[M]`` each."""

    log_score: Tensor
    log_iou: Tensor

    @classmethod
    def of(cls, predictions: Predictions, objects: Objects, pairs: Pairs) -> PairQuality:
        # side by side: four short gathers and plain products are much faster than rows of four and reductions over them
        x1, y1, x2, y2 = (side.index_select(0, pairs.position) for side in predictions.boxes.unbind(dim=1))
        left, top, right, bottom = (side.index_select(0, pairs.box) for side in objects.boxes.unbind(dim=1))
        width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp_(min=0)
        overlap = width * (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp_(min=0)
        area = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top)
        iou = overlap / (area - overlap).clamp_(min=1e-6)
        score = predictions.scores[pairs.position, objects.labels.index_select(0, pairs.box)]
        # a floor far below any quality that matters keeps zeros comparable; only rounding passes 1
        return cls(*(value.float().clamp(_FLOOR, 1).log_() for value in (score, iou)))

    def quality(self, xi: float) -> Tensor:
        """``q`` of every pair (:func:`quality`), ``[M]``; zero again where a factor was below the floor."""
        score, iou = (torch.where(log > _LOG_FLOOR, log.exp(), 0.0) for log in self)
        return score ** (1 - xi) * iou**xi

    def top(self, pairs: Pairs, objects: int, xis: Sequence[float], topk: int) -> tuple[Tensor, Tensor]:
        """The best ``topk`` positions of each box for X xis: indices ``[K, X, G]`` and whether they exist (bool)."""
        device, total = pairs.box.device, len(pairs.box)
        # One sort for all: by xi, box, quality. Bits of positive floats are ordered as the floats are, and torch sorts
        # integers some twenty times faster.
        costs = torch.cat([((1 - xi) * self.log_score + xi * self.log_iou).abs_() for xi in xis])
        sets = torch.cat([pairs.box + i * objects for i in range(len(xis))])
        order = ((sets << 32) + costs.view(torch.int32)).argsort(stable=True)
        bounds = torch.searchsorted(sets, torch.arange(len(xis) * objects + 1, device=device))
        slot = bounds[:-1] + torch.arange(topk, device=device)[:, None]
        exists = slot < bounds[1:]
        index = pairs.position[order[slot.clamp_(max=len(order) - 1)] % total]
        return index.unflatten(1, (-1, objects)), exists.unflatten(1, (-1, objects))


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
    dtype, (x, y), member = points.dtype, points.double().unbind(dim=-1), valid.double()
    count = member.sum(dim=0).clamp(min=1)

    def noisy(coordinate: Tensor) -> Tensor:
        return coordinate + jitter * (2 * torch.rand_like(coordinate) - 1) if jitter else coordinate

    fit_x, fit_y = noisy(x), noisy(y)
    mean_x, mean_y = (fit_x * member).sum(dim=0) / count, (fit_y * member).sum(dim=0) / count
    spread_x, spread_y = (fit_x - mean_x) * member, (fit_y - mean_y) * member
    a, b, d = (
        (s * t).sum(dim=0) / count for s, t in ((spread_x, spread_x), (spread_x, spread_y), (spread_y, spread_y))
    )
    if ridge is None:
        det = a * d - b * b + 1e-10
    else:
        a, d = a + ridge, d + ridge
        det = a * d - b * b
    x, y = x - mean_x, y - mean_y
    distance = (d * x * x - 2 * b * x * y + a * y * y) / det
    return (torch.exp(-0.5 * distance) * member).to(dtype)


def heaviest(weights: Tensor, index: Tensor, count: int) -> Tensor:
    """The largest of the ``weights`` that fall on each of ``count`` positions, ``[count]``; zero where none does.

    ``index`` says where, in the shape of ``weights``.
    """
    return weights.new_zeros(count).scatter_reduce(0, index.flatten(), weights.flatten(), reduce="amax")


def heaviest_by_xi(weights: Tensor, index: Tensor, count: int) -> Tensor:
    """:func:`heaviest` for each xi by itself: ``[K, X, G]`` to ``[X, count]``."""
    xis = weights.size(1)
    # every xi has a stretch of positions of its own
    stretch = torch.arange(xis, device=index.device)[:, None] * count
    return heaviest(weights, index + stretch, xis * count).unflatten(0, (xis, -1))


def prediction_guided_weights(
    predictions: Predictions,
    objects: Objects,
    xi: float,
    topk: int,
    released: bool = False,
    swap_axes: bool = False,
    jitter: float = 0.0,
    ranked: Tensor | None = None,
) -> Tensor:
    """The weight of every prediction: the Gaussian of each box's top-K positions, largest over boxes (PGD section 3.2).

    By default the in-box test comes before top-K, so that fewer than K in-box positions mean a smaller K, and the
    covariance gets a small fixed ridge. ``released=True``: top-K over all positions first, in-box test after the fit,
    no ridge. The release also draws noise of ``jitter`` = 0.05 pixels for the fit, and for FCOS and AutoAssign tests
    the transposed position (``swap_axes``); with anchors its top-K sees those of ``ranked`` alone, bool ``[P]``.

    Returns:
        ``[P]`` in 0..1; zeros when there are no boxes.
    """
    centers, boxes = predictions.centers, objects.boxes
    if not len(boxes) or not len(centers):
        return centers.new_zeros(len(centers))
    tested = centers.flip(1) if swap_axes else centers
    if not released:
        pairs = inside_pairs(tested, boxes)
        values = PairQuality.of(predictions, objects, pairs)
        return weights_of_pairs(values, pairs, centers, len(boxes), (xi,), topk, jitter)[0]
    found = _raw_quality(predictions, objects, xi)
    if ranked is not None:
        found, topk = found.masked_fill(~ranked[:, None], -1), min(topk, int(ranked.sum()))
    best, index = found.topk(min(topk, len(centers)), dim=0)
    exists = torch.ones_like(best, dtype=torch.bool)
    weights = gaussian_weights(centers[index], exists, ridge=None, jitter=jitter)
    return heaviest(weights * inside(tested, boxes).gather(0, index), index, len(centers))


def weights_of_pairs(
    values: PairQuality,
    pairs: Pairs,
    centers: Tensor,
    objects: int,
    xis: Sequence[float],
    topk: int,
    jitter: float = 0.0,
) -> Tensor:
    """:func:`prediction_guided_weights` by default, for known in-box pairs of G ``objects``; ``[X, P]`` for X xis."""
    if not len(pairs.box):
        return centers.new_zeros(len(xis), len(centers))
    index, exists = values.top(pairs, objects, xis, topk)
    weights = gaussian_weights(centers[index], exists, RIDGE, jitter)
    return heaviest_by_xi(weights, index, len(centers))


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
