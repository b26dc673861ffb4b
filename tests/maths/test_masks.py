"""The masks that the ablation compares, against plain loops, hand-made values and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from support.flat import mask, prediction_guided_weights, quality
from support.pyramids import DOUBLE, SOME_BOXES, literal_weights, pyramid, scene, single
from torch import Tensor
from torch.testing import assert_close

from pgd.maths.masks import MASKS, at_mean
from pgd.maths.regions import (
    RIDGE,
    background_mask,
    inside,
    pairwise_iou,
)

KINDS = tuple(MASKS)
#: two that overlap, one that holds a single position, one that holds none
BOXES = [[10, 20, 75, 90], [30, 5, 70, 100], [106, 113, 110, 118], [110.5, 110.5, 111.5, 111.5]]


def strides_of(*strides: int, h: int = 128, w: int = 128) -> Tensor:
    """Of :func:`pyramid`'s positions."""
    return torch.cat([torch.full(((h // s) * (w // s),), float(s), **DOUBLE) for s in strides])


def arguments(seed: int, boxes: list, strides: tuple[int, ...] = (8, 16, 32)) -> tuple[Tensor, ...]:
    """What :func:`mask` takes up to xi."""
    scores, predicted, centers, *gt = scene(seed, boxes, pyramid(strides))
    return scores, predicted, centers, strides_of(*strides), *gt


def literal_mask(kind: str, scores, boxes, centers, strides, gt_boxes, gt_labels, xi: float, topk: int) -> Tensor:
    """Box by box and position by position."""
    total = np.zeros(len(centers))
    iou = pairwise_iou(boxes, gt_boxes).numpy()
    scores, centers, strides = scores.numpy(), centers.numpy(), strides.numpy()
    for g, (left, top, right, bottom) in enumerate(gt_boxes.tolist()):
        within = [j for j, (x, y) in enumerate(centers) if left < x < right and top < y < bottom]
        q = {j: scores[j, int(gt_labels[g])] ** (1 - xi) * iou[j, g] ** xi for j in within}
        best = sorted(within, key=lambda j: -q[j])[:topk]
        middle = (left + right) / 2, (top + bottom) / 2
        own = {}
        if kind == "box":
            own = dict.fromkeys(within, 1.0)
        elif kind == "box_gaussian":
            for j in within:
                u, v = (centers[j, 0] - middle[0]) / (right - left), (centers[j, 1] - middle[1]) / (bottom - top)
                own[j] = math.exp(-(u**2 + v**2) / (2 / 12))
        elif kind == "center":
            for j in within:
                x, y = centers[j]
                own[j] = float(max(abs(x - middle[0]), abs(y - middle[1])) < 1.5 * strides[j])
        elif kind == "quality":
            own = q
        elif kind == "topk":
            own = dict.fromkeys(best, 1.0)
        elif kind == "kde" and best:
            points, n = centers[best], len(best)
            widths = [math.sqrt(points[:, d].var() + RIDGE) * n ** (-1 / 6) for d in (0, 1)]
            for j in best:
                u, v = ((points[:, d] - centers[j, d]) / widths[d] for d in (0, 1))
                own[j] = float(np.exp(-(u**2) / 2 - v**2 / 2).sum())
            own = {j: value / max(own.values()) for j, value in own.items()}
        for j, value in own.items():
            total[j] = max(total[j], value)
    return torch.from_numpy(total)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "xi", "topk"), [(0, 0.8, 9), (1, 0.6, 30), (2, 0.0, 1), (3, 1.0, 5)])
def test_mask_equals_a_literal_loop(kind, seed, xi, topk):
    for boxes in (BOXES, SOME_BOXES):
        given = arguments(seed, boxes)
        scores, predicted, centers, _, *gt = given
        if kind == "pgw":
            expected = literal_weights(scores, predicted, centers, *gt, xi, topk, False)
        else:
            expected = literal_mask(kind, *given, xi, topk)
        ours = mask(kind, *given, xi, topk)
        assert_close(ours, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(ours != 0, expected != 0)

        if boxes is BOXES:
            within = inside(centers, gt[0])
            assert within.sum(dim=0).tolist()[2:] == [1, 0]
            assert int(within[:, :2].all(dim=1).sum()) > 9
            assert kind in ("box_gaussian", "quality") or float(ours[within[:, 2]]) == 1, "a position by itself"


@pytest.mark.parametrize("topk", [1, 9])
@pytest.mark.parametrize("xi", [0.0, 0.3, 1.0])
def test_pgw_is_the_methods_own(xi, topk):
    scores, predicted, centers, strides, *gt = arguments(4, SOME_BOXES)
    expected = prediction_guided_weights(scores, predicted, centers, *gt, xi, topk)
    assert torch.equal(mask("pgw", scores, predicted, centers, strides, *gt, xi, topk), expected)


@pytest.mark.parametrize("xi", [0.0, 0.6, 1.0])
def test_quality_of_nothing_is_nothing(xi):
    """Where the score or the overlap is zero so is q, unless its exponent is zero, too."""
    scores, predicted, centers, strides, *gt = arguments(5, BOXES[:2])
    scores, predicted = scores.clone(), predicted.clone()
    scores[::3] = 0
    predicted[1::3] += 500
    ours = mask("quality", scores, predicted, centers, strides, *gt, xi, 9)
    expected = quality(scores, predicted, centers, *gt, xi).amax(dim=1)
    assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(ours != 0, expected != 0)
    within = inside(centers, gt[0]).any(dim=1)
    gone = {0.0: [0], 0.6: [0, 1], 1.0: [1]}[xi]
    for third in range(3):
        assert bool((ours[third::3][within[third::3]] == 0).all()) == (third in gone)


# ------------------------------------------------------------------------------------------------ values by hand


def row(kind: str, box: list, **chosen) -> Tensor:
    """The mask of one box on a single level of stride 8, as a map ``[16, 16]``."""
    given = arguments(6, [box], (8,))
    return mask(kind, *given, 0.8, chosen.get("topk", 9)).reshape(16, 16)


def test_center_by_hand():
    """Positions 4, 12, 20, ...: those less than 12 px from the centre, and in the box."""
    expected = torch.zeros(16, 16, **DOUBLE)
    # around (45, 50): x in 33..57, y in 38..62
    expected[5:8, 4:7] = 1
    assert torch.equal(row("center", [5, 10, 85, 90]), expected)
    # a narrow box cuts the region
    expected[5:8, 4], expected[5:8, 6] = 0, 0
    assert torch.equal(row("center", [40, 10, 50, 90]), expected)


def test_center_is_larger_on_coarse_levels():
    given = arguments(7, [[0, 0, 128, 128]])
    ours = mask("center", *given, 0.8, 9)
    for stride in (8, 16, 32):
        level = ours[given[3] == stride]
        # the centre (64, 64) lies between positions: half a stride away are the next two of each axis
        assert int(level.sum()) == 4
        distance = (given[2][given[3] == stride] - 64).abs().amax(dim=1)
        assert torch.equal(level > 0, distance < 1.5 * stride)


def test_box_gaussian_by_hand():
    """1 in the middle, e^(-3/2) at the middle of an edge, e^-3 at a corner; the same for every box."""
    ours = row("box_gaussian", [4 - 1e-6, 20 - 1e-6, 116 + 1e-6, 100 + 1e-6])
    assert float(ours[7, 7]) == pytest.approx(1, abs=1e-6)
    for place, expected in {(7, 0): -1.5, (2, 7): -1.5, (2, 0): -3, (12, 14): -3}.items():
        assert math.log(ours[place]) == pytest.approx(expected, abs=1e-5)


def test_box_gaussian_is_the_gaussian_of_the_whole_box():
    """PGD's own with a K that takes in every position of a fine grid; so its geometric mean is e^-1, too."""
    given = arguments(8, [[4, 12, 100, 124]], (2,))
    inner = inside(given[2], given[4])[:, 0]
    ours, whole = mask("box_gaussian", *given, 0.8, 9), mask("pgw", *given, 0.8, int(inner.sum()))
    assert_close(ours, whole, rtol=0, atol=1e-3)
    assert float(ours[inner].log().mean()) == pytest.approx(-1, abs=2e-3)


@pytest.mark.parametrize("topk", [4, 9, 30])
def test_geometric_mean_of_pgw(topk):
    """e^-1 whatever the layout."""
    weights = mask("pgw", *arguments(9, [[10, 20, 100, 90]]), 0.8, topk)
    chosen = weights[weights > 0]
    assert len(chosen) == topk
    assert float(chosen.log().mean()) == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize("topk", [1, 5, 30, 999])
def test_conservation(topk):
    """As many equal weights as there are positions to choose, and one of density 1, in every box by itself."""
    for box, positions in (([10, 20, 100, 90], None), (BOXES[2], 1), (BOXES[3], 0)):
        given = arguments(10, [box])
        count = int(inside(given[2], given[4]).sum())
        assert positions in (None, count)
        best, density = mask("topk", *given, 0.8, topk), mask("kde", *given, 0.8, topk)
        assert float(best.sum()) == min(topk, count) == int(best.count_nonzero())
        assert torch.equal(density > 0, best > 0)
        assert float(density.max()) == float(count > 0)
        assert float(mask("box", *given, 0.8, topk).sum()) == count


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (6, 1)])
def test_kde_equals_scipys(shape):
    """On a lattice, where x and y are not correlated and scipy's kernel is a product as well."""
    rows, columns = shape
    box = [40, 40, 40 + 8 * columns, 40 + 8 * rows]
    ours = row("kde", box, topk=99)
    chosen = ours > 0
    assert int(chosen.sum()) == rows * columns
    points = pyramid((8,))[chosen.flatten()].T.numpy()
    n = rows * columns
    # scipy's covariance is the unbiased one; a ridge for the lattice of one column
    factor = n ** (-1 / 6) * math.sqrt((n - 1) / n)
    if columns == 1:
        expected = gaussian_kde(points[1], factor)(points[1])
    else:
        expected = gaussian_kde(points, factor)(points)
    assert_close(ours[chosen], torch.from_numpy(expected / expected.max()), rtol=1e-4, atol=1e-4)


def test_kde_is_high_where_the_best_are_many():
    """Twenty positions side by side and the best one far away, beside a box that has fewer than K."""
    scores, predicted, centers, strides, *gt = arguments(11, [[88, 88, 120, 120], [0, 0, 128, 128]], (8,))
    near, far = (centers < torch.tensor([40.0, 32])).all(dim=1), (centers == torch.tensor([124.0, 108])).all(dim=1)
    scores = torch.where((near | far)[:, None], 0.5 + scores / 3, scores / 1000)
    scores[far] = 1
    ours = mask("kde", scores, predicted, centers, strides, *gt, 0.0, 21)
    small = inside(centers, gt[0][:1])[:, 0]
    assert torch.equal(ours > 0, near | far | small)
    assert int(small.sum()) == 16
    assert float(ours[near].min()) > 0.4 > 0.2 > float(ours[far])


# ---------------------------------------------------------------------------------------------------- invariances


@pytest.mark.parametrize("kind", KINDS)
def test_moving_everything_moves_nothing(kind):
    scores, predicted, centers, strides, gt, labels = arguments(12, BOXES)
    base = mask(kind, scores, predicted, centers, strides, gt, labels, 0.8, 9)
    shift = torch.tensor([96.0, -40.0], **DOUBLE)
    moved = predicted + shift.repeat(2), centers + shift, strides, gt + shift.repeat(2)
    assert_close(mask(kind, scores, *moved, labels, 0.8, 9), base, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_boxes_and_of_positions(kind):
    """Boxes in any order and twice; positions in another order give the map in that order."""
    scores, predicted, centers, strides, gt, labels = arguments(13, SOME_BOXES)
    base = mask(kind, scores, predicted, centers, strides, gt, labels, 0.6, 9)
    for order in ([4, 2, 0, 3, 1], [0, 1, 2, 3, 4, 0, 3, 3]):
        shuffled = mask(kind, scores, predicted, centers, strides, gt[order], labels[order], 0.6, 9)
        assert_close(shuffled, base)
    order = torch.randperm(len(centers), generator=torch.Generator().manual_seed(0))
    other = mask(kind, scores[order], predicted[order], centers[order], strides[order], gt, labels, 0.6, 9)
    assert_close(other, base[order])


@pytest.mark.parametrize("kind", KINDS)
def test_exchanging_x_and_y_and_doubling(kind):
    scores, predicted, centers, strides, gt, labels = arguments(14, SOME_BOXES)
    base = mask(kind, scores, predicted, centers, strides, gt, labels, 0.8, 9)
    swap = [1, 0, 3, 2]
    turned = mask(kind, scores, predicted[:, swap], centers.flip(1), strides, gt[:, swap], labels, 0.8, 9)
    assert_close(turned, base)
    # but for the ridge
    twice = mask(kind, scores, 2 * predicted, 2 * centers, 2 * strides, 2 * gt, labels, 0.8, 9)
    assert_close(twice, base, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_mask_depends_on(kind):
    expected = {"box": set(), "box_gaussian": set(), "center": {"strides"}, "quality": {"predictions", "xi"}}
    scores, predicted, centers, strides, *gt = arguments(15, SOME_BOXES)
    base = mask(kind, scores, predicted, centers, strides, *gt, 0.8, 9)
    seen = {
        "predictions": mask(kind, scores.flip(0), predicted, centers, strides, *gt, 0.8, 9),
        "xi": mask(kind, scores, predicted, centers, strides, *gt, 0.2, 9),
        "strides": mask(kind, scores, predicted, centers, 2 * strides, *gt, 0.8, 9),
        "topk": mask(kind, scores, predicted, centers, strides, *gt, 0.8, 5),
    }
    changed = {name for name, m in seen.items() if not torch.equal(m, base)}
    assert changed == expected.get(kind, {"predictions", "xi", "topk"})


@pytest.mark.parametrize("kind", KINDS)
def test_three_hundred_boxes_in_single_precision(kind):
    g = torch.Generator().manual_seed(16)
    corner, size = torch.rand(300, 2, generator=g) * 140 - 10, 60 ** torch.rand(300, 2, generator=g)
    given = [single(t) for t in arguments(16, torch.cat((corner, corner + size), dim=1))]
    outside = background_mask(given[2], given[4]).bool()
    assert outside.any()
    assert not outside.all()
    for scores in (given[0], given[0].bfloat16()):
        ours = mask(kind, scores, *given[1:], 0.8, 30)
        assert ours.dtype == torch.float32
        assert bool(ours.isfinite().all())
        assert ours.min() >= 0
        assert 0.5 < ours.max() <= 1
        assert not ours[outside].any()
        assert ours.count_nonzero() > 100


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_that_add_nothing(kind):
    """No box, boxes without a position, no position at all."""
    outside = [[300, 300, 400, 400], [-90, -90, -10, -10], [37, 37, 39, 39], [50, 50, 50, 50], [60, 60, 40, 40]]
    base = mask(kind, *arguments(17, BOXES), 0.8, 9)
    for boxes in ([], outside):
        assert_close(mask(kind, *arguments(17, boxes), 0.8, 9), torch.zeros_like(base))
    assert_close(mask(kind, *arguments(17, BOXES + outside), 0.8, 9), base)
    scores, predicted, centers, strides, *gt = arguments(17, BOXES)
    assert mask(kind, scores[:0], predicted[:0], centers[:0], strides[:0], *gt, 0.8, 9).shape == (0,)


def test_unknown_mask():
    with pytest.raises(ValueError, match=r"no mask 'gauss'; there are: box, box_gaussian, .*, pgw$"):
        mask("gauss", *arguments(18, BOXES), 0.8, 9)


def test_masks_of_one_mean_weight():
    """Each image by itself; an empty mask stays empty, and where weight lies does not change."""
    masks = torch.tensor([[[0.0, 0.2], [0.6, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    even = at_mean(masks, 0.5)
    assert_close(even, torch.tensor([[[0.0, 0.25], [0.75, 0.0]], [[0.5, 0.5], [0.5, 0.5]], [[0.0, 0.0], [0.0, 0.0]]]))
