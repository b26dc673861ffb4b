"""What GID is made of, by hand: instances, pooling, matches, coded boxes, relations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from support.detectors import QUIET, images, pair, view_of
from support.steps import IMAGE, STRIDES

from pgd.dense import flatten_levels
from pgd.methods.gid import box_deltas, general_instances, matched, pooled, relation_loss, relative_distances

pytestmark = QUIET
#: at which the second level takes boxes from 32 pixels on
BASE = 2.0


def select(gain: list[float], boxes: list[list[float]], **settings) -> list[list[float]]:
    """Of one image with these differences of scores; the student's boxes are the teacher's moved by a pixel."""
    scores, theirs = torch.tensor([gain]), torch.tensor([boxes])
    zero, valid = torch.zeros_like(scores), torch.ones_like(scores, dtype=torch.bool)
    return general_instances(zero, scores, theirs + 1, theirs, valid, [IMAGE], **settings)[0].tolist()


def test_instances_by_hand():
    one, two, far = [0.0, 0, 20, 20], [2.0, 0, 22, 20], [30.0, 20, 50, 40]
    # The sign of the difference says whose box it is; 18/22 is above 0.3, so that the second is suppressed.
    assert select([0.5, 0.4, -0.3], [one, two, far]) == [one, [31, 21, 51, 41]]
    assert select([0.5, 0.6, 0.3], [one, two, far]) == [two, far]
    assert select([0.5, 0.4, 0.3], [one, two, far], nms_iou=0.9) == [one, two, far]
    assert select([0.5, 0.4, 0.3], [one, two, far], instances=1) == [one]
    # Only the first two are looked at.
    assert select([0.5, 0.4, 0.3], [one, two, far], candidates=2) == [one]
    # Clipped to 48 x 64, then too small: exactly 10 pixels are.
    assert select([0.5, 0.4], [[54.0, 0, 90, 20], far]) == [far]
    assert select([0.5, 0.4], [[50.0, -9, 90, 20], far], min_side=5.0) == [[50, 0, 64, 20], far]


def test_pooling_takes_each_box_from_its_image_and_level():
    """Constant maps: what comes out says where it was taken."""
    maps = [torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1).expand(2, 3, 6, 8) * scale for scale in (1, 10)]
    boxes = [torch.tensor([[8.0, 8, 20, 20], [8, 4, 56, 40]]), torch.tensor([[16.0, 16, 40, 30]])]
    values = pooled(maps, boxes, STRIDES, BASE).amax(dim=(1, 2, 3))
    assert sorted(values.tolist()) == [1.0, 2.0, 10.0]
    assert pooled(maps, [boxes[0][:0]] * 2, STRIDES, BASE).shape == (0, 3, 10, 10)


def test_matches_by_hand():
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 19], [30, 0, 40, 10]])
    valid = torch.ones(1, 4, dtype=torch.bool)

    def match(*boxes: list[float]) -> list[bool]:
        return matched(anchors, [torch.tensor(boxes).reshape(-1, 4)], valid)[0].tolist()

    # IoU 1, 1/3, 10/19
    assert match([0.0, 0, 10, 10]) == [True, False, True, False]
    # 1/5 with the last and nothing above: its best match all the same
    assert match([34.0, 0, 64, 6]) == [False, False, False, True]
    # equally far from both
    assert match([2.5, 0, 12.5, 5]) == [True, True, False, False]
    assert match([50.0, 30, 60, 40]) == [False] * 4
    assert match() == [False] * 4
    assert match([0.0, 0, 10, 10], [34.0, 0, 64, 6]) == [True, False, True, True]


def test_deltas_are_those_of_mmdet_s_coder():
    g, coder = torch.Generator().manual_seed(0), DeltaXYWHBBoxCoder()
    anchors = 50 * torch.rand(40, 4, generator=g)
    anchors[:, 2:] += anchors[:, :2] + 5
    deltas = 1.5 * torch.randn(40, 4, generator=g)
    boxes = coder.decode(anchors, deltas)
    torch.testing.assert_close(box_deltas(boxes, anchors), deltas, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(box_deltas(boxes, anchors), coder.encode(anchors, boxes), rtol=1e-4, atol=1e-4)


def test_deltas_of_a_box_without_area_are_finite():
    boxes = torch.tensor([[5.0, 5, 5, 4], [0, 0, 1e6, 1e6]], requires_grad=True)
    deltas = box_deltas(boxes, torch.tensor([[0.0, 0, 10, 10]] * 2))
    limit = float(np.log(1000 / 16))
    torch.testing.assert_close(deltas[:, 2:], torch.tensor([[-limit] * 2, [limit] * 2]))
    deltas.sum().backward()
    assert boxes.grad.isfinite().all()


def test_deltas_are_what_retinanet_regresses():
    model = pair("retinanet", method="gid")
    with torch.no_grad():
        model.teacher.bbox_head.retina_reg.weight.mul_(0.1)
    view = view_of(model.teacher, images())
    raw = flatten_levels(view.outputs[1], 4)
    limit = np.log(1000 / 16)
    within = raw[..., 2:].abs().amax(dim=-1) < limit
    found = box_deltas(view.boxes, view.grid.priors)
    torch.testing.assert_close(found[within], raw[within], rtol=1e-3, atol=1e-3)
    assert within.float().mean() > 0.9


def test_relative_distances_by_hand():
    # A right-angled triangle with sides 3, 4, 5: mean 4.
    vectors = torch.tensor([[0.0, 0], [3, 0], [0, 4]])
    expected = torch.tensor([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]], dtype=torch.float64) / 4
    torch.testing.assert_close(relative_distances(vectors), expected)
    torch.testing.assert_close(relative_distances(7 * vectors + 100), expected)


def test_relation_is_blind_to_scale_and_shift():
    features = torch.randn(5, 4, 10, 10)
    assert relation_loss(3 * features + 1, features).item() == pytest.approx(0, abs=1e-9)
    assert relation_loss(torch.randn(5, 4, 10, 10), features) > 1e-4


def test_equal_instances_have_a_finite_gradient():
    student = torch.ones(4, 2, 10, 10, requires_grad=True)
    relation_loss(student, torch.randn(4, 2, 10, 10)).backward()
    assert student.grad.isfinite().all()
