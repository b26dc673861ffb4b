"""PGD's maps and losses against dense, released and plain forms; masks, branches, regions without annotation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from support import steps
from support.detectors import (
    ALL,
    BOXES,
    LABELS,
    QUIET,
    SIZE,
    STRIDES,
    batch,
    detector,
    images,
    objects,
    pair,
    taught,
    view_of,
)
from support.flat import maps_with, mask, prediction_guided_weights
from support.golden import assert_close as assert_close_to_golden
from support.golden import load
from torch import Tensor
from torch.testing import assert_close

from pgd.dense import DistillStep, Grid, reader_of
from pgd.maths.masks import MASKS
from pgd.maths.regions import background_mask
from pgd.methods.base import MethodError
from pgd.methods.pgd import LEVEL_WEIGHTS, PGD
from tools.speed_maps import compare
from tools.steps import step_of

pytestmark = QUIET
SWAP = [1, 0, 3, 2]


def transposed(values: Tensor, grid: Grid) -> Tensor:
    """Rows of positions (or of what they predict) in the order of the grid with rows and columns exchanged."""
    each = len(values) // len(grid.centers)
    parts = values.split([h * w * each for h, w in grid.sizes])
    turned = [p.reshape(h, w, each, -1).transpose(0, 1) for p, (h, w) in zip(parts, grid.sizes, strict=True)]
    return torch.cat([t.flatten(0, 2) for t in turned]).reshape(values.shape)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("swap_axes", [False, True])
def test_maps_equal_those_of_the_dense_formulation(name, swap_axes):
    """The rows and columns that PGD looks at hold the positions inside, and nothing else."""
    grid, scores, boxes = taught(name)
    points = grid.centers.flip(1) if swap_axes else grid.centers
    for gt in ((torch.tensor(BOXES[0]), torch.tensor(LABELS[0])), objects(40)):
        maps = maps_with(grid, scores, boxes, *gt, faults=["B2"] if swap_axes else [])
        for ours, xi in zip(maps, (0.8, 0.6), strict=False):
            arguments = scores, boxes, grid.prediction_centers, *gt, xi, 30
            assert_close(ours, grid.to_positions(prediction_guided_weights(*arguments, swap_axes=swap_axes)))
        assert torch.equal(maps[2], background_mask(points, gt[0]))
        assert all(m.count_nonzero() > 9 for m in maps)
        assert not (maps[0] * maps[2]).any()


@pytest.mark.parametrize("count", [0, 7])
def test_variants_that_are_timed_agree(count):
    compare(count)


@pytest.mark.parametrize("name", ALL)
def test_exchanging_x_and_y_transposes_the_maps(name):
    grid, scores, boxes = taught(name)
    gt_boxes, gt_labels = objects(12)
    reader, turned_sizes = reader_of(detector(name).bbox_head), [(w, h) for h, w in grid.sizes]
    turned = reader.grid(turned_sizes, [{"pad_shape": SIZE[::-1]}], torch.device("cpu"))
    assert torch.equal(turned.centers, transposed(grid.centers, grid).flip(1))
    theirs = transposed(scores, grid), transposed(boxes, grid)[:, SWAP], gt_boxes[:, SWAP], gt_labels
    maps = maps_with(grid, scores, boxes, gt_boxes, gt_labels)
    for ours, other in zip(maps, maps_with(turned, *theirs), strict=True):
        assert_close(other, transposed(ours, grid), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_maps_know_neither_the_order_of_boxes_nor_the_scale(name):
    grid, scores, boxes = taught(name)
    gt_boxes, gt_labels = objects(12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    maps = maps_with(grid, scores, boxes, gt_boxes, gt_labels)
    shuffled = maps_with(grid, scores, boxes, gt_boxes[order], gt_labels[order])
    twice = replace(grid, centers=2 * grid.centers, strides=2 * grid.strides)
    scaled = maps_with(twice, scores, 2 * boxes, 2 * gt_boxes, gt_labels)
    for ours, other, larger in zip(maps, shuffled, scaled, strict=True):
        assert_close(other, ours)
        # but for the ridge, whose share is a quarter in a picture twice as large
        assert_close(larger, ours, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_maps_of_odd_boxes(name):
    grid, scores, boxes = taught(name)
    # between positions, outside on two sides, without area, inside out
    empty = torch.tensor([[33.0, 33, 35, 35], [200, 1, 260, 9], [-60, -60, -3, -3], [50, 50, 50, 50], [60, 60, 40, 40]])
    for count in (0, 5):
        *weights, background = maps_with(grid, scores, boxes, empty[:count], torch.arange(count))
        assert not any(w.any() for w in weights)
        assert bool((background == 1).all())
    usual, labels = torch.tensor(BOXES[1]), torch.tensor(LABELS[1])
    base = maps_with(grid, scores, boxes, usual, labels)
    more = torch.cat((usual, empty, usual)), torch.cat((labels, torch.arange(5), labels))
    for ours, other in zip(base, maps_with(grid, scores, boxes, *more), strict=True):
        assert_close(other, ours)
    for dtype in (torch.float32, torch.bfloat16):
        for m in (many := maps_with(grid, scores.to(dtype), boxes.to(dtype), *objects(300))):
            assert bool(m.isfinite().all())
            assert m.min() >= 0
            assert m.max() <= 1
        assert not (many[0] * many[2]).any()
        assert many[0].max() > 0.5


@pytest.mark.parametrize("name", ALL)
def test_maps_of_feature_maps_of_one_position(name):
    """A 32 x 32 image: levels of 4 x 4, 2 x 2 and three times 1 x 1."""
    view = view_of(detector(name, 1).eval(), images(1, (32, 32)))
    assert view.grid.sizes == ((4, 4), (2, 2), (1, 1), (1, 1), (1, 1))
    maps = maps_with(view.grid, view.scores[0], view.boxes[0], torch.tensor([[-1.0, -1, 31, 31]]), torch.tensor([2]))
    within = (view.grid.centers < 31).all(dim=1)
    assert torch.equal(maps[2], 1 - within.float())
    assert all(bool(m.isfinite().all()) and m[within].any() and not m[~within].any() for m in maps[:2])


def golden_image(case: int) -> tuple[dict, dict, Grid, tuple[Tensor, ...]]:
    """An image of the golden values: settings, arrays, its grid, and the arguments of a map from the scores on."""
    meta, a = load(f"pgd_weights_{case}")
    sizes = []
    for level in range(5):
        own = a["points"][a["level"] == level]
        sizes.append((len(own[:, 1].unique()), len(own[:, 0].unique())))
    strides = torch.tensor(STRIDES, dtype=torch.float32)[a["level"]]
    grid = Grid(a["points"], strides, tuple(sizes), torch.ones(1, len(strides), dtype=torch.bool), None)
    return meta, a, grid, (a["teacher_logits"].sigmoid(), a["teacher_boxes"], a["gt_boxes"], a["gt_labels"])


@pytest.mark.parametrize("case", [0, 1, 2])
@pytest.mark.parametrize(("swap_axes", "kind"), [(False, "anchor_based"), (True, "anchor_free_released")])
def test_maps_as_released(case, swap_axes, kind):
    meta, a, grid, (scores, boxes, *gt) = golden_image(case)
    xi, topk = meta["xi"], meta["topk"]
    arguments = scores, boxes, grid.centers, *gt
    assert_close_to_golden(
        prediction_guided_weights(*arguments, xi, topk, released=True, swap_axes=swap_axes), a[f"weights_{kind}"]
    )
    points = grid.centers.flip(1) if swap_axes else grid.centers
    assert_close_to_golden(background_mask(points, gt[0]), a[f"background_{kind}"])
    faults = ["B2", "B4"] if swap_axes else ["B4"]
    *weights, background = maps_with(grid, scores, boxes, *gt, faults=faults, topk=topk, xi_cls=xi, xi_reg=xi)
    for ours in weights:
        assert_close_to_golden(ours, a[f"weights_{kind}"])
    assert_close_to_golden(background, a[f"background_{kind}"])


# ------------------------------------------------------------------ masks, branches, regions without annotation


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", MASKS)
def test_maps_of_every_mask(name, kind):
    """Each branch has the mask of its own xi; a position has the largest weight of its predictions."""
    grid, scores, boxes = taught(name)
    strides = grid.strides.repeat_interleave(grid.per_position)
    gt = objects(12)
    maps = maps_with(grid, scores, boxes, *gt, mask=kind)
    for ours, xi in zip(maps, (0.8, 0.6), strict=False):
        expected = mask(kind, scores, boxes, grid.prediction_centers, strides, *gt, xi, 30)
        assert_close(ours, grid.to_positions(expected))
    assert torch.equal(maps[2], maps_with(grid, scores, boxes, *gt)[2])
    assert not (maps[0] * maps[2]).any()


def crowded_step(**changes) -> DistillStep:
    """Two objects in each image but the last; regions without annotation over an object, apart, and everywhere."""
    step = steps.step(3, seed=5, ctx=steps.context(**changes))
    regions = [[0.0, 0, 30, 48], [50, 1, 63, 20]], [], [[-9.0, -9, 99, 99]]
    step.ignored_boxes = [torch.tensor(r).reshape(-1, 4) for r in regions]
    return step


def plain_sums(step: DistillStep, method: PGD) -> dict[str, float]:
    """The losses for flat attention, without attention terms, from the weights by image and position."""
    centers, starts = step.grid.centers.tolist(), (0, steps.SIZES[0][0] * steps.SIZES[0][1], None)
    maps, cls_loss, reg_loss = method.masks(step), 0.0, 0.0
    for level in (0, 1):
        weighted, count = 0.0, 0
        for n, boxes in enumerate(step.gt_boxes):
            cls_distance, reg_distance = (
                (student[level][n] - teacher[level][n]).detach().flatten(1).numpy() ** 2
                for student, teacher in zip(step.student.towers, step.teacher.towers, strict=True)
            )
            cls_map, reg_map = (branch[level][n].flatten().numpy() for branch in maps[:2])
            covers = [*boxes.tolist(), *(step.ignored_boxes[n].tolist() if method.ignored == "exclude" else [])]
            free = [
                float(not any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in covers))
                for x, y in centers[starts[level] : starts[level + 1]]
            ]
            for factor, weights in ((method.alpha, cls_map), (method.beta, np.array(free))):
                share = factor * LEVEL_WEIGHTS[level] / max(np.count_nonzero(weights), 1)
                cls_loss += share * float((weights * cls_distance).sum()) / len(step.gt_boxes)
            weighted += float((reg_map * reg_distance.mean(axis=0)).sum())
            count += np.count_nonzero(reg_map)
        reg_loss += method.gamma * weighted / max(count, 1)
    return {"loss_pgd_cls": cls_loss, "loss_pgd_reg": reg_loss}


@pytest.mark.parametrize("ignored", ["exclude", "background"])
@pytest.mark.parametrize("settings", [*({"mask": kind} for kind in MASKS), {"beta_ratio": 0.0}], ids=str)
def test_losses_equal_plain_sums(settings, ignored):
    step = crowded_step()
    for view in (step.student, step.teacher):
        view.towers = view.cls_tower, view.reg_tower
    method = PGD(steps.context(), delta_ratio=0.0, temperature=1e9, topk=5, ignored=ignored, **settings)
    expected = plain_sums(step, method)
    assert {k: v.item() for k, v in method(step).items()} == pytest.approx(expected, rel=1e-4)
    assert all(v > 0 for v in expected.values())


@pytest.mark.parametrize("branch", ["cls", "reg"])
def test_one_branch_is_that_of_both(branch):
    """Bit for bit, without a gradient in the other tower and without its adapter."""
    step, context = crowded_step(student_channels=6), steps.context(student_channels=6)
    both, alone = PGD(context, adapter=True), PGD(context, adapter=True, branches=branch)
    assert {name.split("_")[0] for name in alone.state_dict()} == {branch}
    alone.load_state_dict({k: v for k, v in both.state_dict().items() if k.startswith(branch)})
    (name, loss), others = next(iter(alone(step).items())), both(step)
    assert name == f"loss_pgd_{branch}"
    assert torch.equal(loss, others[name])
    assert len(others) == 2
    for tower in ("cls", "reg"):
        grads = torch.autograd.grad(loss, getattr(step.student, f"{tower}_tower"), retain_graph=True, allow_unused=True)
        assert {g is not None and bool(g.any()) for g in grads} == {tower == branch}


@pytest.mark.parametrize("name", ["gfl", "fcos", "retinanet"])
def test_regions_without_annotation(name):
    """From the data set to the background: left out by default, background as released; objects stay foreground."""
    inputs, samples = batch()
    region = torch.tensor([[50.0, 0, 128, 50]])
    samples[0].ignored_instances = InstanceData(bboxes=region)
    seen = {}
    for ignored in ("exclude", "background"):
        model = pair(name, ignored=ignored)
        step = step_of(model, inputs, samples)
        seen[ignored] = [torch.cat([level.flatten(1) for level in kind], dim=1) for kind in model.method.masks(step)]
    for ours, theirs in zip(seen["exclude"][:2], seen["background"][:2], strict=True):
        assert torch.equal(ours, theirs)
    ours, theirs = seen["exclude"][2], seen["background"][2]
    apart = background_mask(step.grid.centers, region)
    assert torch.equal(ours[0], theirs[0] * apart)
    assert not torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert pair(name).method.ignored == "exclude"
    assert pair(name, method="pgd_released").method.ignored == "background"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask": "gauss"}, r"no mask 'gauss'; there are: box, .*, pgw"),
        ({"branches": "all"}, "no branches 'all'; there are: both, cls, reg"),
        ({"ignored": "skip"}, "no ignored 'skip'; there are: exclude, background"),
        ({"mask": "kde", "faults": ["B5"]}, "mask 'kde' has none"),
        ({"mask": "box", "faults": ["B4"]}, "mask 'box' has none"),
        ({"mask": "topk", "faults": ["B2"]}, "mask 'topk' has none"),
        ({"mask": "box", "faults": None}, r"leave them off \(method pgd\), or set mask: pgw"),
        ({"faults": ["B1", "B6"]}, "no fault 'B6'; there are: B1, B2, B3, B4, B5, padding, assignment"),
        ({"faults": "B1"}, r"'B1' is no list; .* faults: \[B1\]"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(MethodError, match=message):
        pair("fcos", method="pgd_released" if "faults" in settings else "pgd", **settings)


@pytest.mark.parametrize("kind", ["pgw", "quality"])
def test_masks_at_a_mean_weight(kind):
    """Every level of an image that has a foreground; the background is as it was."""
    model = pair("gfl", mask=kind, mask_mean=0.5)
    step = step_of(model, *batch())
    *weights, background = model.method.masks(step)
    for level in (one for branch in weights for image in zip(*branch, strict=True) for one in image):
        assert not level.any() or level[level != 0].mean().item() == pytest.approx(0.5, rel=1e-5)
    plain = pair("gfl", mask=kind).method.masks(step)
    for ours, theirs in zip(background, plain[2], strict=True):
        assert torch.equal(ours, theirs)
