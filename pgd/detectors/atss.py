"""ATSS with the IoU branch of PGD's experiments."""

from __future__ import annotations

import torch
from mmdet.models.dense_heads import ATSSHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor


@MODELS.register_module()
class ATSSIoUHead(ATSSHead):
    """ATSS whose third branch predicts the IoU of its box instead of its centerness (PGD's ``atss_iou_head.py``).

    GIoU is the plain mean over positives, and the branch learns ``IoU(prediction, target)`` with a cross-entropy. Same
    parameters and same inference as :class:`ATSSHead`: what was trained here loads there.
    """

    def loss_by_feat_single(
        self,
        anchors: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        centerness: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        avg_factor: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Losses of one level; the sum of GIoU, which the caller divides by the sum of the last value, the count."""
        logits = cls_score.permute(0, 2, 3, 1).reshape(-1, self.cls_out_channels)
        labels = labels.reshape(-1)
        loss_cls = self.loss_cls(logits, labels, label_weights.reshape(-1), avg_factor=avg_factor)
        positive = ((labels >= 0) & (labels < self.num_classes)).nonzero().squeeze(1)
        deltas = bbox_pred.permute(0, 2, 3, 1).reshape(-1, 4)
        quality = centerness.permute(0, 2, 3, 1).reshape(-1)
        if not len(positive):
            return loss_cls, deltas.sum() * 0, quality.sum() * 0, deltas.new_zeros(())
        boxes = self.bbox_coder.decode(anchors.reshape(-1, 4)[positive], deltas[positive])
        targets = bbox_targets.reshape(-1, 4)[positive]
        with torch.no_grad():
            overlap = bbox_overlaps(boxes, targets, is_aligned=True).clamp(min=1e-6)
        loss_bbox = self.loss_bbox(boxes, targets, avg_factor=1.0)
        loss_iou = self.loss_centerness(quality[positive], overlap, avg_factor=avg_factor)
        return loss_cls, loss_bbox, loss_iou, deltas.new_tensor(float(len(positive)))
