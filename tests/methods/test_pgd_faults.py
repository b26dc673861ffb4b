"""PGD's maps on every detector, its settings, and the faults of the released code, one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from support import flat, steps
from support.detectors import (
    ALL,
    BOXES,
    CLASSES,
    LABELS,
    PAPER,
    QUIET,
    SIZE,
    STRIDES,
    batch,
    detector,
    images,
    objects,
    pair,
    taught,
    terms,
    view_of,
)
from support.flat import mask, prediction_guided_weights
from support.golden import assert_close as assert_close_to_golden
from support.golden import load
from torch import Tensor
from torch.testing import assert_close

from pgd.dense import DistillStep, Grid, reader_of
from pgd.detectors.ddod import CostTopKAssigner
from pgd.distiller import Distiller
from pgd.maths.masks import (
    MASKS,
)
from pgd.maths.regions import (
    background_mask,
    pairwise_iou,
)
from pgd.methods.base import MethodContext, MethodError
from pgd.methods.pgd import LEVEL_WEIGHTS, PGD
from pgd.methods.pgd_released import PGDReleased
from tools.gpu_speed import step_of
from tools.speed_maps import compare

pytestmark = QUIET
SWAP = [1, 0, 3, 2]


def maps_of(grid: Grid, *arguments: Tensor, **settings) -> tuple[Tensor, Tensor, Tensor]:
    """Of PGD, or of its release where ``faults`` are given; those of any head."""
    context = MethodContext(32, 32, 32, 32, 5, CLASSES, STRIDES, None, anchor_free=True)
    method = (PGDReleased if "faults" in settings else PGD)(context, **settings)
    return flat.maps_of(method, grid, *arguments)


def with_fault(name: str, *faults: str) -> Distiller:
    """A pair with these faults of the release alone."""
    return pair(name, method="pgd_released", faults=faults, ignored="exclude")


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
        maps = maps_of(grid, scores, boxes, *gt, faults=["B2"] if swap_axes else [])
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
    maps = maps_of(grid, scores, boxes, gt_boxes, gt_labels)
    for ours, other in zip(maps, maps_of(turned, *theirs), strict=True):
        assert_close(other, transposed(ours, grid), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_maps_know_neither_the_order_of_boxes_nor_the_scale(name):
    grid, scores, boxes = taught(name)
    gt_boxes, gt_labels = objects(12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    maps = maps_of(grid, scores, boxes, gt_boxes, gt_labels)
    shuffled = maps_of(grid, scores, boxes, gt_boxes[order], gt_labels[order])
    twice = replace(grid, centers=2 * grid.centers, strides=2 * grid.strides)
    scaled = maps_of(twice, scores, 2 * boxes, 2 * gt_boxes, gt_labels)
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
        *weights, background = maps_of(grid, scores, boxes, empty[:count], torch.arange(count))
        assert not any(w.any() for w in weights)
        assert bool((background == 1).all())
    usual, labels = torch.tensor(BOXES[1]), torch.tensor(LABELS[1])
    base = maps_of(grid, scores, boxes, usual, labels)
    more = torch.cat((usual, empty, usual)), torch.cat((labels, torch.arange(5), labels))
    for ours, other in zip(base, maps_of(grid, scores, boxes, *more), strict=True):
        assert_close(other, ours)
    for dtype in (torch.float32, torch.bfloat16):
        for m in (many := maps_of(grid, scores.to(dtype), boxes.to(dtype), *objects(300))):
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
    maps = maps_of(view.grid, view.scores[0], view.boxes[0], torch.tensor([[-1.0, -1, 31, 31]]), torch.tensor([2]))
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
    *weights, background = maps_of(grid, scores, boxes, *gt, faults=faults, topk=topk, xi_cls=xi, xi_reg=xi)
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
    maps = maps_of(grid, scores, boxes, *gt, mask=kind)
    for ours, xi in zip(maps, (0.8, 0.6), strict=False):
        expected = mask(kind, scores, boxes, grid.prediction_centers, strides, *gt, xi, 30)
        assert_close(ours, grid.to_positions(expected))
    assert torch.equal(maps[2], maps_of(grid, scores, boxes, *gt)[2])
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


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        *((n, "B2", "this head has anchors: leave B2 out") for n in ALL if n not in ("fcos", "autoassign")),
        *((n, "padding", "this head has anchors: leave padding out") for n in ALL if n not in ("fcos", "autoassign")),
        *((n, "B3", "no distributions: leave B3 out") for n in ALL if n != "gfl"),
        *((n, "assignment", "assigns labels .* leave assignment out") for n in ALL if n != "ddod"),
    ],
)
def test_a_fault_that_does_not_concern_the_head_is_refused(name, fault, message):
    with pytest.raises(MethodError, match=message):
        with_fault(name, fault)


# -------------------------------------------------------------------------------------------- one fault at a time

#: what a mask or a fault changes: weights, background, L_cls, L_reg, the detector's own loss
CHANGES = {
    "topk": {"weights", "cls", "reg"},
    "B1": {"cls"},
    "B2": {"weights", "background", "cls", "reg"},
    "B4": {"weights", "cls", "reg"},
    "B5": {"weights", "cls", "reg"},
    "B3": {"weights", "cls", "reg"},
    "assignment": {"own"},
}
ONLY = {"B2": ("fcos", "autoassign"), "B3": ("gfl",), "assignment": ("ddod",)}


@pytest.mark.parametrize(("name", "change"), [(n, c) for c in CHANGES for n in PAPER if n in ONLY.get(c, PAPER)])
def test_a_fault_changes_what_it_should(name, change):
    expected = CHANGES[change]

    def built() -> tuple[Distiller, Distiller]:
        return pair(name), pair(name, mask=change) if change == "topk" else with_fault(name, change)

    models = built()
    seen = [step_of(model, *batch()) for model in models]
    maps = [model.method.masks(step) for model, step in zip(models, seen, strict=True)]
    losses = [model.loss(*batch()) for model in built()]
    own = [
        torch.stack([sum(v) if isinstance(v, list) else v for k, v in x.items() if k not in terms(x)]) for x in losses
    ]
    values = {
        "weights": [torch.cat([w.flatten() for kind in m[:2] for w in kind]) for m in maps],
        "background": [torch.cat([b.flatten() for b in m[2]]) for m in maps],
        "cls": [x["loss_pgd_cls"] for x in losses],
        "reg": [x["loss_pgd_reg"] for x in losses],
        "own": own,
    }
    assert {key for key, (plain, other) in values.items() if not torch.equal(plain, other)} == expected


@pytest.mark.parametrize("name", PAPER)
def test_mixing_a_batch_of_one_changes_nothing(name):
    inputs, samples = batch()
    ours, theirs = (terms(model.loss(inputs[:1], samples[:1])) for model in (pair(name), with_fault(name, "B1")))
    assert_close(ours, theirs)


def test_swapping_axes_keeps_boxes_on_the_diagonal():
    grid, scores, boxes = taught("fcos")
    gt = torch.tensor([[10.0, 10, 60, 60], [40, 40, 90, 90]]), torch.tensor([0, 3])
    for ours, theirs in zip(*(maps_of(grid, scores, boxes, *gt, faults=f) for f in ([], ["B2"])), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["fcos", "autoassign"])
def test_padding_as_background(name):
    """Of an image that is padded from the right and below: only its background, and only there."""
    maps, step = [], None
    for model in (pair(name), with_fault(name, "padding")):
        step = step_of(model, *batch())
        step.grid.valid[1, (step.grid.centers[:, 0] > 64) | (step.grid.centers[:, 1] > 48)] = False
        maps.append([torch.cat([m.flatten(1) for m in kind], dim=1) for kind in model.method.masks(step)])
    (cls, reg, background), (cls_too, reg_too, everywhere) = maps
    assert torch.equal(cls, cls_too)
    assert torch.equal(reg, reg_too)
    assert torch.equal(background, everywhere * step.grid.valid)
    assert bool(everywhere[1][~step.grid.valid[1]].any())


def test_top_k_as_released_leaves_out_the_padding_where_there_are_anchors():
    """The positions of the padding could as well not be there."""
    grid, scores, boxes = taught("atss")
    gt_boxes, gt_labels = objects(12)
    ranked = (grid.centers[:, 0] < 70) & (grid.centers[:, 1] < 70)
    arguments = grid.centers, gt_boxes, gt_labels, 0.8, 9
    ours = prediction_guided_weights(scores, boxes, *arguments, released=True, ranked=ranked)
    few = prediction_guided_weights(scores[ranked], boxes[ranked], grid.centers[ranked], *arguments[1:], released=True)
    assert_close(ours[ranked], few)
    assert not ours[~ranked].any()
    assert not torch.equal(ours, prediction_guided_weights(scores, boxes, *arguments, released=True))
    method = PGDReleased(MethodContext(32, 32, 32, 32, 5, CLASSES, STRIDES, None), faults=["B4"], topk=9)
    seen = flat.maps_of(method, replace(grid, valid=ranked[None]), scores, boxes, gt_boxes, gt_labels)
    assert_close(seen[0], ours)


def test_strides_by_image():
    """Image i is decoded with the stride of level i everywhere: that level is right, the others are scaled."""
    model = with_fault("gfl", "B3")
    step = step_of(model, *batch())
    centers, strides = step.grid.centers, step.grid.strides[:, None]
    for i, (right, wrong) in enumerate(zip(step.teacher.boxes, model.method.teacher_boxes(step), strict=True)):
        scale = STRIDES[i] / strides.repeat(1, 4)
        assert_close(wrong - centers.repeat(1, 2), (right - centers.repeat(1, 2)) * scale, rtol=1e-4, atol=1e-3)
        same = (strides == STRIDES[i])[:, 0]
        assert_close(wrong[same], right[same])
        assert not torch.isclose(wrong[~same], right[~same]).all(dim=1).any()
    with pytest.raises(MethodError, match="at most 5 images a batch"):
        model.loss(images(6), batch()[1] * 3)


def test_jitter_is_drawn_anew_and_follows_the_seed():
    grid, scores, boxes = taught("gfl")
    maps = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        maps.append(maps_of(grid, scores, boxes, *objects(5), faults=["B5"], xi_reg=0.8))
    plain = maps_of(grid, scores, boxes, *objects(5))[0]
    assert torch.equal(maps[0][0], maps[1][0])
    assert not torch.equal(maps[0][0], maps[2][0])
    # as released, each branch has noise of its own
    assert not torch.equal(maps[0][0], maps[0][1])
    assert torch.equal(maps[0][0] != 0, plain != 0)
    assert (maps[0][0] - plain).abs().median() < 1e-2


def test_assigning_by_the_teacher():
    """DDOD's labels are those that the teacher would give itself; nothing changes where it says the same."""
    model, mirror, given, labels = with_fault("ddod", "assignment"), pair("ddod"), batch(), []
    mirror.student.load_state_dict(model.teacher.state_dict())
    for each in (model, mirror):
        each.method.needs = each.method.needs | {"assignment"}
        labels.append(step_of(each, *given).labels)
    assert torch.equal(*labels)
    assert bool((labels[0] < CLASSES).any())
    settings = {"method": "pgd_released", "ignored": "exclude"}
    equal = [pair("ddod", equal=True, faults=f, **settings).loss(*given) for f in ([], ["assignment"])]
    assert_close(*equal, rtol=0, atol=0)
    assert "process_predictions_and_anchors" not in vars(model.student.bbox_head)


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


@pytest.mark.parametrize("name", ALL)
def test_pgd_released_turns_on_what_concerns_the_detector(name):
    method = pair(name, method="pgd_released").method
    own = {"fcos": {"B2", "padding"}, "autoassign": {"B2", "padding"}, "gfl": {"B3"}, "ddod": {"assignment"}}
    assert method.faults == {"B1", "B4", "B5"} | own.get(name, set())
    assert method.assign_by_teacher == (name == "ddod")
    chosen = pair(name, method="pgd_released", faults=["B4"], alpha=0.08).method
    assert chosen.faults == {"B4"}
    assert (chosen.alpha, chosen.beta) == (0.08, 0.04)
    losses = terms(pair(name, method="pgd_released").loss(*batch()))
    assert all(bool(v.isfinite()) and v > 0 for v in losses.values())


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
