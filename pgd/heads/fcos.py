"""FCOS and AutoAssign: distances from points, in pixels or in strides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import AutoAssignHead, FCOSHead
from mmdet.structures.bbox import distance2bbox
from torch import Tensor

from pgd.dense import Grid, HeadReader, UnsupportedHead, flatten_levels, reads


class PointReader(HeadReader):
    """A head that regresses the four distances from a point, in pixels."""

    anchor_free = True

    def centers(self, priors: Tensor) -> Tensor:
        return priors[:, :2]

    def boxes(self, outputs: Sequence, grid: Grid) -> Tensor:
        distances = flatten_levels(outputs[1], 4)
        return distance2bbox(grid.centers.expand(distances.size(0), -1, -1), distances)


@reads(FCOSHead)
class FCOSReader(PointReader):
    """With ``norm_on_bbox`` a head in training mode gives distances in strides, one in eval mode gives pixels."""

    predicts_quality = True

    def boxes(self, outputs: Sequence, grid: Grid) -> Tensor:
        if self.head.norm_on_bbox and self.head.training:
            levels = zip(outputs[1], self.strides, strict=True)
            outputs = (outputs[0], [distances * stride for distances, stride in levels])
        return super().boxes(outputs, grid)

    def assignment(self, targets: Sequence, images: int) -> tuple[Tensor, Tensor]:
        labels = torch.cat([level.reshape(images, -1) for level in targets[0]], dim=1)
        # no point is ignored, not even in the padding
        return labels, torch.ones_like(labels, dtype=torch.float32)

    def centerness_targets(self, targets: Sequence, images: int) -> Tensor:
        labels, _ = self.assignment(targets, images)
        # left, top, right, bottom; their unit cancels out
        distances = torch.cat([level.reshape(images, -1, 4) for level in targets[1]], dim=1)
        across = distances.unflatten(-1, (2, 2)).sort(dim=-2).values
        share = (across[..., 0, :] / across[..., 1, :]).prod(dim=-1).sqrt()
        # background has distances too, to no box in particular
        return torch.where(labels < self.head.num_classes, share, 0.0)


@reads(AutoAssignHead)
class AutoAssignReader(PointReader):
    """Always in pixels. No position is assigned to an object or to the background: all in-box ones are, by degrees."""

    assigns_labels = False
    predicts_quality = True

    def assignment(self, targets: Sequence, images: int) -> tuple[Tensor, Tensor]:
        raise UnsupportedHead("AutoAssignHead weighs positions instead of labelling them: no assignment to distil by")
