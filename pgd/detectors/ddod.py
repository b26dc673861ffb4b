"""DDOD's assigner as PGD has it: it looks at predictions."""

from __future__ import annotations

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.models.task_modules.assigners.base_assigner import BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps

from pgd.maths.regions import inside, pairwise_iou


@TASK_UTILS.register_module()
class CostTopKAssigner(BaseAssigner):
    """Each object's ``topk`` positions of largest ``p^(1-xi) IoU^xi``, over all levels (``cost_topk_assigner.py``).

    Of these, the ones whose centre lies inside the box and whose value is not zero become positive; a position that
    two objects want goes to the one with the larger value. PGD's DDOD uses xi 0.8 for classes and 0.6 for boxes.

    Args:
        topk: positions an object at most.
        xi: balance of localisation against classification.
        ignore_iof_thr: a position that is not positive and has more than this share of its anchor inside an ignore
            region (a crowd) is neither positive nor background; -1: ignore regions are plain background, as released.
    """

    #: pixels that a centre must keep from the box's sides
    margin = 0.01

    def __init__(self, topk: int = 9, xi: float = 0.8, ignore_iof_thr: float = -1) -> None:
        self.topk, self.xi, self.ignore_iof_thr = topk, xi, ignore_iof_thr

    @torch.no_grad()
    def assign(self, pred_instances, num_level_priors, gt_instances, gt_instances_ignore=None) -> AssignResult:
        """``pred_instances``: ``priors``, decoded ``bboxes`` and class logits ``scores`` of all positions."""
        priors, boxes, logits = pred_instances.priors, pred_instances.bboxes, pred_instances.scores
        gt_boxes, gt_labels = gt_instances.bboxes, gt_instances.labels
        count, objects = priors.size(0), gt_boxes.size(0)
        owner = priors.new_zeros(count, dtype=torch.long)
        overlap_of = priors.new_zeros(count)
        labels = owner.new_full((count,), -1)
        if objects and count:
            overlap = pairwise_iou(boxes, gt_boxes)
            value = logits[:, gt_labels].sigmoid() ** (1 - self.xi) * overlap**self.xi
            centers = (priors[:, :2] + priors[:, 2:]) / 2
            shrunk = gt_boxes + gt_boxes.new_tensor([self.margin, self.margin, -self.margin, -self.margin])
            best = value.topk(min(self.topk, count), dim=0).indices
            chosen = torch.zeros_like(value, dtype=torch.bool).scatter_(0, best, True)
            chosen &= (value > 0) & inside(centers, shrunk)
            largest, index = value.masked_fill(~chosen, -1).max(dim=1)
            positive = largest >= 0
            owner[positive] = index[positive] + 1
            labels[positive] = gt_labels[index[positive]]
            overlap_of[positive] = overlap[positive, index[positive]]
        if self.ignore_iof_thr > 0 and gt_instances_ignore is not None and len(gt_instances_ignore):
            share = bbox_overlaps(priors, gt_instances_ignore.bboxes, mode="iof").amax(dim=1)
            owner[(share > self.ignore_iof_thr) & (owner == 0)] = -1
        return AssignResult(objects, owner, overlap_of, labels=labels)
