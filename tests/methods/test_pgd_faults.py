"""What each fault of PGD's release changes, one at a time, and which heads it concerns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support import flat
from support.detectors import (
    ALL,
    CLASSES,
    PAPER,
    QUIET,
    STRIDES,
    batch,
    images,
    objects,
    pair,
    taught,
    terms,
)
from support.flat import maps_with, prediction_guided_weights
from torch.testing import assert_close

from pgd.distiller import Distiller
from pgd.methods.base import MethodContext, MethodError
from pgd.methods.pgd_released import PGDReleased
from tools.steps import step_of

pytestmark = QUIET

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


def with_fault(name: str, *faults: str) -> Distiller:
    """A pair with these faults of the release alone."""
    return pair(name, method="pgd_released", faults=faults, ignored="exclude")


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


@pytest.mark.slow
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
    for ours, theirs in zip(*(maps_with(grid, scores, boxes, *gt, faults=f) for f in ([], ["B2"])), strict=True):
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
        maps.append(maps_with(grid, scores, boxes, *objects(5), faults=["B5"], xi_reg=0.8))
    plain = maps_with(grid, scores, boxes, *objects(5))[0]
    assert torch.equal(maps[0][0], maps[1][0])
    assert not torch.equal(maps[0][0], maps[2][0])
    # as released, each branch has noise of its own
    assert not torch.equal(maps[0][0], maps[0][1])
    assert torch.equal(maps[0][0] != 0, plain != 0)
    assert (maps[0][0] - plain).abs().median() < 1e-2


@pytest.mark.slow
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
