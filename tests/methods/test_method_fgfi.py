"""FGFI by loops and by hand, its two forms and its switches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.many_anchors import SHAPES, many
from support.oracles import fgfi as oracle
from support.steps import SIZES, context, step
from torch import nn

from pgd.dense import DistillStep
from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.fgfi import START, imitation_mask, masked_distance
from pgd.scaling import FULL, Size, published_settings

COUNTS = [h * w for h, w in SIZES]


def double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def spread(seed: int = 0, make: Callable = step, **kwargs) -> DistillStep:
    """A step with a box that is near to anchors of the coarse level, too."""
    given = make(seed=seed, **kwargs)
    given.gt_boxes[0] = torch.cat((given.gt_boxes[0], torch.tensor([[3.0, 1.0, 63.0, 46.0]])))
    return given


def expected_mask(given: DistillStep, threshold: float = 0.5) -> np.ndarray:
    """bool ``[N, P]``"""
    grid = given.grid
    images = zip(given.gt_boxes, grid.valid, strict=True)
    anchors, each = double(grid.priors), grid.per_position
    return np.stack([oracle.mask(anchors, double(boxes), valid.numpy(), each, threshold) for boxes, valid in images])


def expected_loss(given: DistillStep, adapt: list, reduction: str, threshold: float = 0.5) -> float:
    chosen = torch.from_numpy(expected_mask(given, threshold))
    levels = zip(adapt, given.student.neck, given.teacher.neck, given.grid.split(chosen), strict=True)
    return sum(oracle.level_loss(double(f(s)), double(t), mask.numpy(), reduction) for f, s, t, mask in levels)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("make", [step, many], ids=["one anchor", "several anchors"])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_method_by_loops(seed, make, threshold, reduction):
    given = spread(seed, make, images=3)
    given.grid.valid[0, [9, 10, 55]] = False
    method = build_method("fgfi", context(), weight=3.0, threshold=threshold, reduction=reduction)
    assert np.array_equal(method.mask(given).numpy(), expected_mask(given, threshold))
    expected = 3 * expected_loss(given, [nn.Identity()] * 2, reduction, threshold)
    assert expected > 1
    assert method(given)["loss_fgfi"].item() == pytest.approx(expected, rel=1e-5)


def test_own_form_of_the_paper():
    """Sum over channels over twice the positions, behind a convolution and an activation."""
    given = spread()
    method = build_method("fgfi", context(), weight=0.01, reduction="sum", adapter=True, relu=True)
    for adapter in method.adapters:
        nn.init.normal_(adapter.weight)
    adapt = [nn.Sequential(adapter, nn.ReLU()) for adapter in method.adapters]
    expected = 0.01 * expected_loss(given, adapt, "sum")
    assert method(given)["loss_fgfi"].item() == pytest.approx(expected, rel=1e-5)
    without = build_method("fgfi", context(), weight=0.01, reduction="sum", adapter=True)
    without.load_state_dict(method.state_dict())
    assert without(given)["loss_fgfi"].item() == pytest.approx(0.01 * expected_loss(given, method.adapters, "sum"))


def test_the_default_is_lds_setting_for_gfl():
    """Weight 2, mean over chosen positions and channels, nothing on the student's features."""
    given = spread()
    method = build_method("fgfi", context(), **published_settings("fgfi", "gfl"))
    assert not list(method.parameters())
    assert not list(method.buffers())
    mask = method.mask(given)
    expected = 0.0
    for s, t, m in zip(given.student.neck, given.teacher.neck, given.grid.split(mask), strict=True):
        pairs = [f.permute(0, 2, 3, 1)[m] for f in (s, t)]
        expected += 2 * nn.functional.mse_loss(*pairs).item()
    assert method(given)["loss_fgfi"].item() == pytest.approx(expected, rel=1e-5)


def test_mask_by_hand():
    # Three 8 x 8 anchors in a row. The box is the first moved by 2: IoU 48/80; with the second 16/112 = 0.143, less
    # than half of that. Moved by 3: 40/88 = 0.455 and 24/104 = 0.231, just more than half.
    anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [16, 0, 24, 8]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    assert imitation_mask(anchors, [torch.tensor([[2.0, 0, 10, 8]])], valid).tolist() == [[True, False, False]]
    assert imitation_mask(anchors, [torch.tensor([[3.0, 0, 11, 8]])], valid).tolist() == [[True, True, False]]
    # Exactly at the threshold is not above it: both overlaps are 32/96, the threshold is 1.
    half = torch.tensor([[4.0, 0, 12, 8]])
    assert imitation_mask(anchors, [half], valid, threshold=1.0).tolist() == [[False] * 3]
    # Two anchors a position: either will do.
    assert imitation_mask(anchors[[0, 2, 2, 1]], [half], valid[:, :2], per_position=2).tolist() == [[True, True]]


def test_padding_is_neither_chosen_nor_the_maximum():
    anchors = torch.tensor([[0.0, 0, 8, 8], [2, 0, 10, 8], [8, 0, 16, 8]])
    box = [torch.tensor([[2.0, 0, 10, 8]])] * 2
    valid = torch.tensor([[True, True, True], [True, False, True]])
    # 48/80 and 16/112 against the maximum of 1 or of 0.6
    assert imitation_mask(anchors, box, valid).tolist() == [[True, True, False], [True, False, False]]
    assert imitation_mask(anchors, box, valid, threshold=0.2).tolist() == [[True, True, False], [True, False, True]]


def test_a_box_that_no_anchor_meets_chooses_nothing():
    anchors = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]])
    boxes = [torch.tensor([[50.0, 50, 60, 60], [3, 3, 3, 3]])]
    assert not imitation_mask(anchors, boxes, torch.ones(1, 2, dtype=torch.bool)).any()


def test_many_boxes_are_done_in_parts(monkeypatch):
    given = many(3)
    given.gt_boxes[1] = torch.cat((given.gt_boxes[1], torch.tensor([[0.0, 0, 9, 12]])))
    grid = given.grid
    whole = imitation_mask(grid.priors, given.gt_boxes, grid.valid, len(SHAPES))
    monkeypatch.setattr("pgd.methods.fgfi.BOXES_AT_ONCE", 2)
    assert torch.equal(imitation_mask(grid.priors, given.gt_boxes, grid.valid, len(SHAPES)), whole)


def test_point_heads_get_squares():
    points, anchored = step(anchor=None), step(anchor=4.0)
    losses = [build_method("fgfi", context(), anchor=4.0)(s)["loss_fgfi"] for s in (points, anchored)]
    assert torch.equal(*losses)
    other = build_method("fgfi", context(), anchor=2.0)
    assert other(points)["loss_fgfi"] != losses[0]
    assert torch.equal(other(anchored)["loss_fgfi"], losses[0]), "real anchors are as they are"


def test_gradient_as_that_of_a_loop():
    given = spread(3)
    method = build_method("fgfi", context())
    found = torch.autograd.grad(method(given)["loss_fgfi"], given.student.neck)
    masks = given.grid.split(method.mask(given))
    leaves = [leaf.detach().double().requires_grad_() for leaf in given.student.neck]
    total = 0.0
    for leaf, teacher, mask in zip(leaves, given.teacher.neck, masks, strict=True):
        for n, y, x in mask.nonzero().tolist():
            distance = ((leaf[n, :, y, x] - teacher[n, :, y, x].detach().double()) ** 2).mean()
            total = total + 2 * distance / mask.sum()
    for grad, expected in zip(found, torch.autograd.grad(total, leaves), strict=True):
        torch.testing.assert_close(grad.double(), expected, rtol=1e-5, atol=1e-9)


def test_distance_has_the_gradient_of_its_difference():
    teacher, mask = torch.randn(2, 3, 2, 3), torch.rand(2, 2, 3) > 0.5
    student = torch.randn(2, 3, 2, 3, requires_grad=True)
    for reduction, share in (("mean", 3), ("sum", 2)):
        (grad,) = torch.autograd.grad(masked_distance(student, teacher, mask, reduction), student)
        torch.testing.assert_close(grad, 2 * mask[:, None] * (student - teacher).detach() / (share * mask.sum()))


def test_images_without_boxes_give_zero_with_a_gradient():
    given = step()
    given.gt_boxes = [boxes[:0] for boxes in given.gt_boxes]
    loss = build_method("fgfi", context())(given)["loss_fgfi"]
    loss.backward()
    assert loss.item() == 0
    assert all(not leaf.grad.any() for leaf in given.student.neck)


def test_delay_is_counted_in_training_and_kept():
    given = step()
    method = build_method("fgfi", context(), delay=2)
    full = build_method("fgfi", context())(given)["loss_fgfi"]
    first = method(given)["loss_fgfi"]
    (grad,) = torch.autograd.grad(first, given.student.neck[0])
    assert first == 0
    assert not grad.any()
    method.eval()
    assert [method(given)["loss_fgfi"].item() for _ in range(3)] == [0.0] * 3, "not in evaluation"
    resumed = build_method("fgfi", context(), delay=2)
    resumed.load_state_dict(method.state_dict())
    losses = [resumed(given)["loss_fgfi"].item() for _ in range(3)]
    assert losses == [0.0, full.item(), full.item()]


def test_levels_without_a_positive_can_be_left_out():
    given = spread()
    given.labels[:, COUNTS[0] :] = 3
    method = build_method("fgfi", context(), positive_levels=True)
    assert method.needs == {"neck", "ground_truth", "assignment"}
    mask = method.mask(given)
    plain = build_method("fgfi", context()).mask(given)
    assert plain[:, COUNTS[0] :].any()
    assert not mask[:, COUNTS[0] :].any()
    assert torch.equal(mask[:, : COUNTS[0]], plain[:, : COUNTS[0]])
    with pytest.raises(MethodError, match="AutoAssign"):
        build_method("fgfi", context(assigns_labels=False), positive_levels=True)
    build_method("fgfi", context(assigns_labels=False))


def test_widths_that_differ_get_an_adapter_near_zero():
    ctx = context(student_channels=6)
    given = step(ctx=ctx)
    method = build_method("fgfi", ctx)
    for adapter in method.adapters:
        assert adapter.weight.shape == (8, 6, 3, 3)
        assert 0.5 * START < adapter.weight.std() < START
        assert adapter.weight.abs().max() <= 2 * START
    expected = 2 * expected_loss(given, method.adapters, "mean")
    assert method(given)["loss_fgfi"].item() == pytest.approx(expected, rel=1e-5)


def test_only_the_squares_depend_on_the_size():
    full, small = (
        published_settings("fgfi", "gfl", size)
        for size in (FULL, Size(channels=32, positions=533, cells=4, blocks=2, warmup=40))
    )
    assert small == {**full, "anchor": 4.0}
    assert full["anchor"] == 8.0
    assert full["weight"] == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduction": "max"}, "'max' is not one of mean, sum"),
        ({"threshold": 1.0}, r"must be in \[0, 1\)"),
        ({"anchor": 0.0}, "must be above 0"),
        ({"relu": True}, "set adapter to true"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(MethodError, match=message):
        build_method("fgfi", context(), **settings)
