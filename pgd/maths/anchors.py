"""Reference boxes of the predictions of any head, the level of the pyramid that a box belongs to, boxes of a batch.

For methods that were made for heads with anchors and that point heads (FCOS, AutoAssign) shall have too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pgd.dense import Grid

#: Side of the squares that stand for the anchors of a point head, in strides; that of ATSS's anchors.
SIDE = 8.0
#: Where a level begins, in its strides (root of a box's area): 224 pixels on the level of stride 16, as FPN has it.
BASE = 14.0


def anchors_of(grid: Grid, side: float = SIDE) -> Tensor:
    """The box that each prediction starts from: its anchor, or a square around the position of a point head.

    Args:
        grid: the positions.
        side: of the squares, in strides of their level; not looked at where the head has anchors.

    Returns:
        ``[P A, 4]`` xyxy pixels.
    """
    if grid.priors is not None:
        return grid.priors
    half = side / 2 * grid.strides[:, None]
    squares = torch.cat((grid.centers - half, grid.centers + half), dim=1)
    return squares.repeat_interleave(grid.per_position, dim=0)


def levels_of(sizes: Tensor, strides: Sequence[int], base: float = BASE) -> Tensor:
    """FPN's rule: a level takes boxes from ``base`` times its stride on, up to where the next one begins.

    Args:
        sizes: ``[G]``, roots of the areas of boxes, pixels.
        strides: of the levels, pixels.
        base: in strides. The first level takes smaller boxes too.

    Returns:
        ``[G]`` index of the level, from 0.
    """
    begins = base * torch.tensor(strides[1:], dtype=sizes.dtype, device=sizes.device)
    return torch.bucketize(sizes, begins, right=True)


def batch_boxes(gt_boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The boxes ``[G, 4]`` of all images in one, and the index of the image ``[G]`` of each."""
    counts = torch.tensor([len(boxes) for boxes in gt_boxes])
    owner = torch.arange(len(gt_boxes)).repeat_interleave(counts)
    boxes = torch.cat(list(gt_boxes))
    return boxes, owner.to(boxes.device)
