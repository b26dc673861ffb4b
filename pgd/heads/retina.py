"""RetinaNet: several anchors a position. A position weighs as much as the best of its anchors."""

from __future__ import annotations

from mmdet.models.dense_heads import RetinaHead

from pgd.dense import HeadReader, reads


@reads(RetinaHead)
class RetinaReader(HeadReader):
    """Nothing differs from the base; the towers have no norm unless the config gives one."""
