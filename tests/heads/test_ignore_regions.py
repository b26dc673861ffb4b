"""Regions without annotation in training: plain background unless the assigner is told to leave them out."""

from __future__ import annotations

import torch
from mmengine.structures import InstanceData
from support.detectors import CLASSES, LABELS, QUIET, SIZE, detector, images, sample

from pgd.detectors.ddod import CostTopKAssigner
from pgd.tape import Tape

pytestmark = QUIET


def assign(threshold: float, ignored: list) -> torch.Tensor:
    """Owners of four anchors; the object's best is the first, and the second is near it."""
    boxes = torch.tensor([[0.0, 0, 20, 20], [2, 2, 22, 22], [60, 0, 80, 20], [70, 0, 90, 20]])
    predictions = InstanceData(priors=boxes, bboxes=boxes, scores=torch.zeros(4, 1))
    truth = InstanceData(bboxes=boxes[:1], labels=torch.tensor([0]))
    regions = InstanceData(bboxes=torch.tensor(ignored).reshape(-1, 4))
    return CostTopKAssigner(topk=1, ignore_iof_thr=threshold).assign(predictions, [4], truth, regions).gt_inds


def test_positions_in_ignore_regions():
    region = [[0.0, 0, 80, 20]]
    assert assign(-1, region).tolist() == [1, 0, 0, 0], "as released"
    # shares inside the region: 1, 0.81, 1, 0.5; a positive stays one
    assert assign(0.5, region).tolist() == [1, -1, -1, 0]
    assert assign(0.9, region).tolist() == [1, 0, -1, 0]
    assert assign(0.5, []).tolist() == [1, 0, 0, 0]


def test_ignored_positions_have_no_weight():
    """Through mmdet's DDOD head: positions in the region get label weight 0, all others keep theirs."""
    weights = {}
    for threshold in (-1, 0.5):
        model = detector("ddod").train()
        for assigner in (model.bbox_head.cls_assigner, model.bbox_head.reg_assigner):
            assigner.ignore_iof_thr = threshold
        data = sample([[10.0, 12, 40, 60]], LABELS[0][:1])
        data.ignored_instances = InstanceData(bboxes=torch.tensor([[64.0, 0, 128, 96]]), labels=torch.tensor([0]))
        tape = Tape(model)
        with tape.recording(targets=True):
            model.loss(images(1), [data])
        labels, weights[threshold] = tape.reader.assignment(tape.targets, 1)
        assert bool((labels < CLASSES).any())
    centers = tape.reader.grid([f.shape[-2:] for f in tape.neck], [{"pad_shape": SIZE}], torch.device("cpu")).centers
    plain, left_out = weights[-1][0] == 1, weights[0.5][0] == 0
    assert bool(plain.all())
    assert bool(left_out.any())
    assert not bool(left_out.all())
    assert bool((centers[left_out][:, 0] > 48).all()), "only anchors that lie in the region by half"
