"""ATSS, as mmdet has it (centerness) and as PGD has it (an IoU branch)."""

from __future__ import annotations

from mmdet.models.dense_heads import ATSSHead, TOODHead

from pgd.dense import HeadReader, reads, refuse


@reads(ATSSHead)
class ATSSReader(HeadReader):
    """The base, and a third branch."""

    predicts_quality = True


refuse(TOODHead, "its two tasks share one tower and its outputs are aligned probabilities; no reader yet")
