"""VFNet: its second, refined boxes are distances from the anchors' centres in pixels."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.dense_heads import VFNetHead
from torch import Tensor

from pgd.dense import Grid, HeadReader, reads
from pgd.heads.fcos import PointReader


@reads(VFNetHead)
class VFNetReader(PointReader):
    """In training the head gives scores, first boxes and refined boxes; in evaluation scores and refined boxes."""

    anchor_free = False
    centers = HeadReader.centers

    def boxes(self, outputs: Sequence, grid: Grid) -> Tensor:
        return super().boxes((outputs[0], outputs[-1]), grid)
