"""LD's region with the overlap that the paper means and with the one that the release computes."""

from __future__ import annotations

import pytest
import torch
from support.golden import assert_close
from support.steps import context

from pgd.maths.regions import pairwise_iof
from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.ld import pairwise_diou, vlr_weights


def boxes(seed: int, count: int) -> torch.Tensor:
    corner, size = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat((60 * corner, 60 * corner + 8 + 30 * size), dim=1)


def test_overlap_by_hand():
    one, other = torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[2.0, 0.0, 10.0, 4.0]])
    assert pairwise_iof(one, other).item() == pytest.approx(4 / 8)
    assert pairwise_iof(other, one).item() == pytest.approx(4 / 32)
    # centres (2, 1) and (6, 2), the hull's diagonal from (0, 0) to (10, 4)
    assert pairwise_diou(one, other).item() == pytest.approx(4 / 36 - 17 / 116)
    assert pairwise_diou(one, other, "anchor").item() == pytest.approx(4 / 8 - 17 / 116)


def test_boxes_without_area_have_no_overlap():
    flat = torch.tensor([[3.0, 3.0, 3.0, 9.0]])
    assert pairwise_iof(flat, boxes(0, 4)).tolist() == [[0, 0, 0, 0]]


def test_the_anchors_own_area_never_gives_less():
    anchors, truth = boxes(1, 200), boxes(2, 5)
    assert (pairwise_diou(anchors, truth, "anchor") >= pairwise_diou(anchors, truth) - 1e-6).all()


def test_the_released_region_is_another_one():
    anchors, truth = boxes(3, 400), boxes(4, 5)
    ours, theirs = (vlr_weights(anchors, [300, 100], truth, overlap=name) for name in ("union", "anchor"))
    assert not torch.equal(ours > 0, theirs > 0)
    both = (ours > 0) & (theirs > 0)
    assert both.any()
    # the weight is the IoU in either, of the boxes in whose region an anchor is
    alone = [vlr_weights(anchors, [300, 100], truth[:1], overlap=name) for name in ("union", "anchor")]
    shared = (alone[0] > 0) & (alone[1] > 0)
    assert_close(alone[0][shared], alone[1][shared])


def test_an_unknown_overlap_is_refused():
    with pytest.raises(MethodError, match="overlap 'box' is not one of union, anchor"):
        build_method("ld", context(bins=17), overlap="box")
