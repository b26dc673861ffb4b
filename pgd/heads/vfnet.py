"""VFNet: its second, refined boxes are distances from points in pixels; the points are the centres of its anchors."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.dense_heads import VFNetHead
from torch import Tensor

from pgd.dense import Grid, reads
from pgd.heads.fcos import PointReader


@reads(VFNetHead)
class VFNetReader(PointReader):
    """In training the head gives scores, first boxes and refined boxes; in evaluation scores and refined boxes."""

    #: Anchors assign its labels. The released faults of point-based heads are not those of VFNet.
    anchor_free = False

    def boxes(self, outputs: Sequence, grid: Grid) -> Tensor:
        return super().boxes((outputs[0], outputs[-1]), grid)

    def assignment(self, targets: Sequence, images: int) -> tuple[Tensor, Tensor]:
        # the weights come without their levels
        weights = targets[1].split([level.numel() for level in targets[0]])
        return super().assignment((None, targets[0], weights), images)
