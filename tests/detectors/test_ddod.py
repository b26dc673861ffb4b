"""DDOD's assigner against a literal loop over objects."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import InstanceData
from support.detectors import QUIET, objects, taught
from torch.testing import assert_close

from pgd.detectors.ddod import CostTopKAssigner
from pgd.maths.regions import pairwise_iou

pytestmark = QUIET


def literal_assignment(priors, boxes, logits, gt_boxes, gt_labels, topk, xi) -> tuple[list, list, list]:
    """Object by object: owners counted from 1, labels, overlaps."""
    owner, label, overlap, best = [0] * len(priors), [-1] * len(priors), [0.0] * len(priors), [0.0] * len(priors)
    iou = pairwise_iou(boxes, gt_boxes)
    for g, (box, c) in enumerate(zip(gt_boxes.tolist(), gt_labels.tolist(), strict=True)):
        value = (logits[:, c].sigmoid() ** (1 - xi) * iou[:, g] ** xi).tolist()
        for j in sorted(range(len(priors)), key=lambda j: -value[j])[:topk]:
            x, y = float(priors[j, 0] + priors[j, 2]) / 2, float(priors[j, 1] + priors[j, 3]) / 2
            if value[j] > best[j] and min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01:
                owner[j], label[j], overlap[j], best[j] = g + 1, c, float(iou[j, g]), value[j]
    return owner, label, overlap


@pytest.mark.parametrize(
    ("seed", "count", "topk", "xi"), [(0, 6, 9, 0.8), (1, 40, 9, 0.6), (2, 3, 999, 0.8), (3, 0, 9, 0.8)]
)
def test_assigner_equals_a_literal_loop(seed, count, topk, xi):
    grid, scores, boxes = taught("ddod", seed % 2)
    gt_boxes, gt_labels = objects(count, seed)
    predictions = InstanceData(priors=grid.priors, bboxes=boxes, scores=scores.logit())
    result = CostTopKAssigner(topk, xi).assign(predictions, None, InstanceData(bboxes=gt_boxes, labels=gt_labels))
    owner, label, overlap = literal_assignment(grid.priors, boxes, scores.logit(), gt_boxes, gt_labels, topk, xi)
    assert result.num_gts == count
    assert result.gt_inds.tolist() == owner
    assert result.labels.tolist() == label
    assert_close(result.max_overlaps, torch.tensor(overlap))
    assert bool(count) == any(owner)
