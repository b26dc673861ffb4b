"""Key predictive regions against values worked out by hand, a literal reference and their invariances."""

from __future__ import annotations

import math

import pytest
import torch
from support.flat import prediction_guided_weights, quality
from support.golden import load
from support.pyramids import DOUBLE, SOME_BOXES, literal_weights, pyramid, scene, single
from torch.testing import assert_close

from pgd.dense import Level
from pgd.maths.regions import (
    RIDGE,
    background_mask,
    gaussian_weights,
    inside,
    inside_pairs,
    pairwise_iou,
    top_fraction,
)


def fit(points: list | torch.Tensor, ridge: float | None = RIDGE) -> torch.Tensor:
    points = torch.as_tensor(points, **DOUBLE)
    return gaussian_weights(points[:, None], torch.ones(len(points), 1, dtype=torch.bool), ridge)[:, 0]


@pytest.mark.parametrize("side", [8, 64, 500])
@pytest.mark.parametrize("ridge", [None, RIDGE])
def test_gaussian_of_square_and_grid(side, ridge):
    """e^-1 at four corners; 1, .472367, .223130 on a 3x3 grid, whatever the spacing."""
    square = fit([[x * side + 3, y * side - 7] for x in (0, 1) for y in (0, 1)], ridge)
    assert_close(square, torch.full((4,), 0.367879, **DOUBLE), rtol=0, atol=1e-4)
    grid = fit([[x * side, y * side] for y in range(3) for x in range(3)], ridge)
    corner, edge = 0.223130, 0.472367
    expected = torch.tensor([corner, edge, corner, edge, 1, edge, corner, edge, corner], **DOUBLE)
    assert_close(grid, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gaussian_geometric_mean(seed):
    """e^-1 for any layout of points that span the plane."""
    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(seed), **DOUBLE) * 40
    assert float(fit(points, None).log().mean()) == pytest.approx(-1)
    assert float(fit(points).log().mean()) == pytest.approx(-1, abs=1e-4)


def test_gaussian_of_singular_sets():
    """With the ridge: one point or identical points weigh 1; on a line the geometric mean is e^-1/2."""
    assert_close(fit([[5.0, 9.0]]), torch.ones(1, **DOUBLE))
    assert_close(fit([[5.0, 9.0]] * 9), torch.ones(9, **DOUBLE))
    for step in ((8, 0), (0, 8), (8, 8), (128, 128)):
        line = fit([[k * step[0], k * step[1]] for k in range(9)])
        assert float(line.log().mean()) == pytest.approx(-0.5, abs=1e-3)


def test_gaussian_ignores_points_that_do_not_belong():
    points = torch.randn(6, 2, 2, generator=torch.Generator().manual_seed(3), **DOUBLE) * 30
    valid = torch.tensor([[1, 0], [1, 0], [0, 0], [1, 0], [1, 0], [0, 1]], dtype=torch.bool)
    weights = gaussian_weights(points, valid, RIDGE)
    assert_close(weights[valid[:, 0], 0], fit(points[valid[:, 0], 0]))
    assert weights[5, 1] == 1
    assert weights.count_nonzero() == 5


def test_gaussian_of_a_diagonal_line_in_single_precision():
    """Nine positions on a diagonal of the stride 128 level."""
    points = torch.arange(9.0)[:, None, None] * 128 + torch.zeros(1, 1, 2)
    weights = gaussian_weights(points, torch.ones(9, 1, dtype=torch.bool), RIDGE)[:, 0]
    assert_close(weights.double(), fit(points[:, 0].double()), rtol=0, atol=1e-2)


def test_inside_is_strict_and_x_before_y():
    """A point of the transposed box is not inside, and no point of the border is."""
    box = torch.tensor([[400.0, 40, 480, 120]])
    points = torch.tensor([[440.0, 80], [80, 440], [400, 80], [480, 80], [440, 40], [440, 120], [401, 119]])
    assert inside(points, box)[:, 0].tolist() == [True, False, False, False, False, False, True]
    assert background_mask(points, box).tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert background_mask(points, box[:0]).tolist() == [1] * 7


def test_quality_by_hand():
    """IoU 1/3 and 1, p 0.25 and 0.5; the third position predicts well but lies outside."""
    scores = torch.tensor([[0.9, 0.25], [0.1, 0.5], [0.9, 0.9]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [5, 0, 15, 10]])
    centers, gt = torch.tensor([[6.0, 5], [10, 5], [2, 5]]), torch.tensor([[5.0, 0, 15, 10]])
    assert_close(pairwise_iou(boxes, gt)[:, 0], torch.tensor([1 / 3, 1, 1]))
    q = quality(scores, boxes, centers, gt, torch.tensor([1]), 0.8)[:, 0]
    assert_close(q, torch.tensor([0.25**0.2 * (1 / 3) ** 0.8, 0.5**0.2, 0]))
    flat, apart = torch.tensor([[5.0, 5, 5, 5]]), torch.tensor([[30.0, 30, 40, 40]])
    assert pairwise_iou(torch.cat((flat, apart)), torch.cat((flat, gt))).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("seed", "xi", "topk"), [(0, 0.8, 9), (1, 0.6, 30), (2, 0.3, 5)])
def test_weights_equal_a_literal_loop(seed, xi, topk, released):
    arguments = scene(seed, SOME_BOXES)
    weights = prediction_guided_weights(*arguments, xi, topk, released)
    expected = literal_weights(*arguments, xi, topk, released)
    assert_close(weights, expected, rtol=1e-5, atol=1e-5)
    assert 0 < weights.count_nonzero() <= topk * len(SOME_BOXES)


@pytest.mark.parametrize(
    ("box", "count"),
    [([33, 33, 39, 39], 1), ([33, 33, 47, 39], 2), ([33, 33, 47, 47], 4), ([37, 37, 39, 39], 0)],
)
def test_box_with_fewer_positions_than_k(box, count):
    """On one level of stride 8: every in-box position is taken; one weighs 1, four on a square e^-1."""
    arguments = scene(4, [box], pyramid((8,)))
    weights = prediction_guided_weights(*arguments, 0.8, 30)
    assert (weights > 0).tolist() == inside(arguments[2], arguments[3])[:, 0].tolist()
    value = {0: 0.0, 1: 1.0, 2: math.exp(-0.5) * 2, 4: math.exp(-1) * 4}[count]
    assert int(weights.count_nonzero()) == count
    assert float(weights.sum()) == pytest.approx(value, abs=1e-3)


def test_boxes_that_add_nothing():
    """No box, or boxes without a position inside: zeros, and the other boxes' weights stay."""
    base = prediction_guided_weights(*scene(5, SOME_BOXES), 0.8, 9)
    outside = [[300, 300, 400, 400], [-90, -90, -10, -10], [37, 37, 39, 39], [50, 50, 50, 50]]
    for released in (False, True):
        for boxes in ([], outside):
            empty = prediction_guided_weights(*scene(5, boxes), 0.8, 9, released)
            assert_close(empty, torch.zeros_like(base))
    *head, gt, labels = scene(5, SOME_BOXES)
    more = torch.cat((gt, torch.tensor(outside, **DOUBLE)))
    assert_close(prediction_guided_weights(*head, more, torch.arange(9) % 3, 0.8, 9), base)
    nowhere = (head[0][:0], head[1][:0], head[2][:0])
    assert prediction_guided_weights(*nowhere, gt, labels, 0.8, 9).shape == (0,)


@pytest.mark.parametrize("released", [False, True])
def test_order_and_repetition_of_boxes_do_not_matter(released):
    *head, gt, labels = scene(6, SOME_BOXES)
    base = prediction_guided_weights(*head, gt, labels, 0.6, 9, released)
    for order in ([4, 2, 0, 3, 1], [0, 1, 2, 3, 4, 0, 3, 3]):
        assert_close(prediction_guided_weights(*head, gt[order], labels[order], 0.6, 9, released), base)


def test_swapping_x_and_y_transposes_the_map():
    gt = [[10, 3, 100, 50], [70, 20, 120, 64]]
    scores, boxes, centers, gt, labels = scene(7, gt, pyramid((8,), 64, 128))
    base = prediction_guided_weights(scores, boxes, centers, gt, labels, 0.8, 9)
    order = torch.arange(len(centers)).reshape(8, 16).T.flatten()
    swap = [1, 0, 3, 2]
    turned = scores[order], boxes[order][:, swap], pyramid((8,), 128, 64), gt[:, swap], labels
    assert_close(prediction_guided_weights(*turned, 0.8, 9), base[order])
    assert base.count_nonzero() > 9


@pytest.mark.parametrize("factor", [2, 0.5])
def test_scaling_everything_keeps_the_weights(factor):
    scores, boxes, centers, gt, labels = scene(8, SOME_BOXES[:4])
    base = prediction_guided_weights(scores, boxes, centers, gt, labels, 0.8, 9)
    scaled = prediction_guided_weights(scores, boxes * factor, centers * factor, gt * factor, labels, 0.8, 9)
    assert_close(scaled, base, rtol=0, atol=1e-3)


def test_released_order_differs_only_where_the_best_lie_outside():
    *head, gt, labels = scene(9, [[0, 0, 128, 128]])
    ours, theirs = (prediction_guided_weights(*head, gt, labels, 0.8, 9, r) for r in (False, True))
    assert_close(ours, theirs, rtol=0, atol=1e-3)
    assert ours.count_nonzero() == 9
    gt = torch.tensor([[50, 50, 80, 80]], **DOUBLE)
    ours, theirs = (prediction_guided_weights(*head, gt, labels, 0.8, 9, r) for r in (False, True))
    assert ours.count_nonzero() == 9 > theirs.count_nonzero()


@pytest.mark.parametrize("case", [0, 1, 2])
def test_default_and_release_differ_by_what_lies_outside_alone(case):
    """Box by box, but for the ridge: the same where the best K lie inside, and where nothing outside competes."""
    meta, a = load(f"pgd_weights_{case}")
    xi, topk, scores, boxes = meta["xi"], meta["topk"], a["teacher_logits"].sigmoid(), a["teacher_boxes"]
    found = set()
    # the last box holds all positions
    gt_boxes = torch.cat((a["gt_boxes"], torch.tensor([[-9.0, -9, 999, 999]])))
    for gt in zip(gt_boxes[:, None], torch.cat((a["gt_labels"], a["gt_labels"][:1]))[:, None], strict=True):
        within = inside(a["points"], gt[0])[:, 0]

        def both(scores, gt=gt):
            given = scores, boxes, a["points"], *gt, xi, topk
            return [prediction_guided_weights(*given, released=released) for released in (False, True)]

        value = scores[:, gt[1][0]] ** (1 - xi) * pairwise_iou(boxes, gt[0])[:, 0] ** xi
        fits = bool(within[value.topk(topk).indices].all())
        found.add(fits)
        ours, theirs = both(scores)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-3) == (fits or not within.any())
        if within.sum() >= topk:
            cleared, theirs = both(scores * within[:, None])
            assert_close(theirs, ours, rtol=0, atol=1e-3)
            assert_close(cleared, ours)
    assert found == ({True} if case == 0 else {True, False})


def test_pairs_by_rows_and_columns_are_all_pairs():
    """Boxes anywhere, many with sides that run through positions, some without any position."""
    centers = pyramid((8, 32), 96, 128)
    levels = [Level(0, 12, 16), Level(192, 3, 4)]
    g = torch.Generator().manual_seed(13)
    corner, size = torch.randint(-6, 30, (200, 2), generator=g), torch.randint(-1, 12, (200, 2), generator=g)
    gt_boxes = torch.cat((corner, corner + size), dim=1) * 4.0
    for boxes in (gt_boxes, gt_boxes + torch.rand(200, 4, generator=g), gt_boxes[:0]):
        ours, expected = inside_pairs(centers, boxes, levels), inside_pairs(centers, boxes)
        assert torch.equal(ours.position, expected.position)
        assert torch.equal(ours.box, expected.box)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("topk", [1, 9, 30])
def test_three_hundred_boxes_in_single_precision(topk, released):
    g = torch.Generator().manual_seed(10)
    corner, size = torch.rand(300, 2, generator=g) * 140 - 10, 60 ** torch.rand(300, 2, generator=g)
    arguments = [single(t) for t in scene(10, torch.cat((corner, corner + size), dim=1))]
    weights = prediction_guided_weights(*arguments, 0.8, topk, released)
    assert bool(weights.isfinite().all())
    assert bool(((weights >= 0) & (weights <= 1)).all())
    assert not weights[background_mask(arguments[2], arguments[3]).bool()].any()


def test_half_precision_scores():
    scores, *rest = map(single, scene(11, SOME_BOXES))
    weights = prediction_guided_weights(scores.bfloat16(), *rest, 0.8, 9)
    assert bool(weights.isfinite().all())
    assert weights.count_nonzero() > 9


@pytest.mark.parametrize(
    ("count", "fraction", "kept"),
    [
        *((10, 0.25, 3), (10, 0.5, 5), (3, 0.1, 1), (1, 0.5, 1), (7, 1.0, 7), (0, 0.5, 0), (10, 0.0, 1)),
        (25, 0.6, 15),
    ],
)
def test_top_fraction_of_each_box(count, fraction, kept):
    """ceil(fraction * n) of the n positions with quality, at least one; a box of 20 is counted on its own."""
    g = torch.Generator().manual_seed(12)
    q = torch.zeros(30, 2)
    for column, n in ((0, count), (1, 20)):
        q[torch.randperm(30, generator=g)[:n], column] = 0.1 + 0.9 * torch.rand(n, generator=g)
    chosen = top_fraction(q, fraction)
    for column, n in ((0, kept), (1, max(1, math.ceil(20 * fraction)))):
        best = q[:, column].argsort(descending=True)[:n]
        assert chosen[:, column].nonzero().flatten().tolist() == sorted(best.tolist())
