"""RetinaNet: several anchors a position. A position weighs as much as the best of its anchors."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.dense_heads import RetinaHead
from torch import Tensor

from pgd.dense import HeadReader, reads


@reads(RetinaHead)
class RetinaReader(HeadReader):
    """Only what it says of labels differs from the base; the towers have no norm unless the config gives one."""

    def assignment(self, targets: Sequence, images: int) -> tuple[Tensor, Tensor]:
        # mmdet's plain anchor heads do not give the anchors first, as ATSS and what follows it do
        return super().assignment((None, *targets), images)
