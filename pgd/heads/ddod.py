"""DDOD: ATSS with deformable first convolutions, an IoU branch, and assigners that look at predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmdet.models.dense_heads import DDODHead

from pgd.dense import HeadReader, reads


@reads(DDODHead)
class DDODReader(HeadReader):
    """Labels are those of the classification assigner; the regression has its own."""

    assigning = "get_cls_targets"
    judges_predictions = True
    predicts_quality = True
    # positives of each level up to now, which weigh the levels' losses
    memory = ("cls_num_pos_samples_per_level", "reg_num_pos_samples_per_level")

    @contextmanager
    def assigning_by(self, outputs: Sequence) -> Iterator[None]:
        own = self.head.process_predictions_and_anchors

        def with_theirs(anchors, valid_flags, cls_scores, bbox_preds, *rest):
            return own(anchors, valid_flags, outputs[0], outputs[1], *rest)

        # mmdet hands predictions to the assigners through this method alone
        self.head.process_predictions_and_anchors = with_theirs
        try:
            yield
        finally:
            del self.head.process_predictions_and_anchors
