"""Which predictions inside the boxes are kept, and what becomes of the others: the maths of the key-region analysis.

Pure functions. P positions over all levels, A predictions a position, C classes, G boxes, M pairs of a prediction and a
box that its position lies in (:class:`pgd.maths.regions.Pairs`), F fractions, S settings that are looked at side by
side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pgd.dense import Grid
from pgd.maths.regions import Pairs

#: Class logit of a dropped prediction: a score of exactly 0, in half precision too.
SILENT = -1e4


def ranks(cost: Tensor, box: Tensor) -> Tensor:
    """Place of each pair ``[M]`` among those of its box by ascending cost, from 0; equal costs keep their order."""
    order = cost.argsort(stable=True)
    order = order[box[order].argsort(stable=True)]
    counts = torch.bincount(box)
    starts = counts.cumsum(0) - counts
    places = torch.arange(len(box), device=box.device) - starts[box[order]]
    return torch.empty_like(order).scatter_(0, order, places)


def relative_distance(centers: Tensor, gt_boxes: Tensor, pairs: Pairs) -> Tensor:
    """Squared distance of a pair's prediction from the box's centre, in units of the box's sides, ``[M]``.

    Args:
        centers: ``[P A, 2]`` position of every prediction, pixels.
        gt_boxes: ``[G, 4]`` xyxy pixels.
        pairs: which prediction, which box.
    """
    middle, sides = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2, gt_boxes[:, 2:] - gt_boxes[:, :2]
    offset = (centers[pairs.position] - middle[pairs.box]) / sides[pairs.box]
    return offset.square().sum(dim=1)


def random_cost(pairs: Pairs, *seed: int) -> Tensor:
    """Costs ``[M]`` that rank the predictions of every box at random; the same for the same seeds on any machine."""
    return torch.from_numpy(np.random.default_rng(seed).random(len(pairs.box))).to(pairs.box.device)


def wanted(counts: Tensor, fractions: Sequence[float]) -> Tensor:
    """How many of ``counts`` ``[G]`` predictions each fraction (0..1) keeps, at least one: ``[F, G]``.

    Rounded up, as :func:`pgd.maths.regions.top_fraction` does.
    """
    shares = torch.tensor(fractions, dtype=torch.double, device=counts.device)
    # the small step back keeps 60% of 25 at 15 in spite of rounding
    return (shares[:, None] * counts - 1e-9).ceil().long().clamp(min=1)


def marked(chosen: Tensor, pairs: Pairs, predictions: int) -> Tensor:
    """Chosen pairs ``[S, M]`` to predictions that any box chose, bool ``[S, predictions]``."""
    setting, pair = chosen.nonzero(as_tuple=True)
    mask = torch.zeros(len(chosen), predictions, dtype=torch.bool, device=chosen.device)
    mask[setting, pairs.position[pair]] = True
    return mask


def silenced(logits: Sequence[Tensor], dropped: Tensor, grid: Grid) -> list[Tensor]:
    """Class logits without the dropped predictions, which are given no score for any class.

    Args:
        logits: one image's, ``[1, A C, H, W]`` of every level as the head gives them.
        dropped: bool ``[S, P A]``.
        grid: describes them.

    Returns:
        ``[S, A C, H, W]`` of every level, new tensors.
    """
    every, out = grid.per_position, []
    parts = dropped.split([count * every for count in grid.counts], dim=1)
    for level, part, (height, width) in zip(logits, parts, grid.sizes, strict=True):
        mask = part.reshape(-1, height, width, every).permute(0, 3, 1, 2)[:, :, None]
        out.append(torch.where(mask, SILENT, level.unflatten(1, (every, -1))).flatten(1, 2))
    return out


def flattened(features: Sequence[Tensor], dropped: Tensor, valid: Tensor, grid: Grid) -> list[Tensor]:
    """Features that are replaced at the dropped positions by their mean over the image, by level and channel.

    Args:
        features: one image's, ``[1, C, H, W]`` of every level.
        dropped: bool ``[S, P]``.
        valid: bool ``[P]``, not in the padding; the mean is taken over these.
        grid: describes them.

    Returns:
        ``[S, C, H, W]`` of every level, new tensors.
    """
    out = []
    for level, part, own in zip(features, grid.split(dropped), grid.split(valid[None]), strict=True):
        mean = (level * own[:, None]).sum(dim=(2, 3), keepdim=True) / own.sum().clamp(min=1)
        out.append(torch.where(part[:, None], mean, level))
    return out


def by_level(kept: Tensor, grid: Grid) -> Tensor:
    """How many of the kept predictions ``[S, P A]`` stand on each level: ``[S, levels]``."""
    parts = kept.split([count * grid.per_position for count in grid.counts], dim=1)
    return torch.stack([part.sum(dim=1) for part in parts], dim=1)
