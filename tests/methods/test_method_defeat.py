"""DeFeat by loops and by hand, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.oracles import defeat as oracle
from support.steps import SIZES, STRIDES, context, step

from pgd.dense import DistillStep
from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.defeat import box_masks, decoupled_distance
from pgd.scaling import FULL, Size, published_settings

#: at which the second level takes boxes from 32 pixels on
BASE = 2.0


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def scattered(seed: int, images: int = 3) -> DistillStep:
    """A step with boxes of all sizes, also less than a cell, and across the edges of the image."""
    given, g = step(images, seed), torch.Generator().manual_seed(seed)
    for image in range(images - 1):
        side = 2 * 40 ** torch.rand(6, 2, generator=g)
        corner = torch.rand(6, 2, generator=g) * torch.tensor([64.0, 48.0]) - side / 2
        boxes = torch.cat((corner, corner + side), dim=1)
        # some part is in the image
        boxes = torch.cat((boxes[:, :2].clamp(max=40), boxes[:, 2:].clamp(min=4)), dim=1)
        given.gt_boxes[image] = torch.cat((boxes, torch.tensor([[21.0, 3.0, 60.0, 45.0]])))
    return given


def stirred(method):
    """Adapters that are not near zero."""
    for adapter in method.adapters:
        torch.nn.init.normal_(adapter.weight, std=0.1)
    return method


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("padding", [False, True])
def test_method_by_loops(seed, padding):
    torch.manual_seed(seed)
    given = scattered(seed)
    given.grid.valid[1] = torch.rand(len(given.grid.centers)) > 0.3
    method = stirred(build_method("defeat", context(), weight=0.5, base=BASE, padding=padding))
    valid = [part.numpy() | padding for part in given.grid.split(given.grid.valid)]
    images = [oracle.masks(double(boxes), SIZES, STRIDES, BASE) for boxes in given.gt_boxes]
    inside = [np.stack([image[level] for image in images]) for level in range(2)]
    assert all(mask.any() for mask in inside)
    student = [double(adapt(s)) for adapt, s in zip(method.adapters, given.student.neck, strict=True)]
    teacher = [double(t) for t in given.teacher.neck]
    pairs = list(zip(inside, valid, strict=True))
    foreground = oracle.term(student, teacher, [m & v for m, v in pairs])
    background = oracle.term(student, teacher, [~m & v for m, v in pairs])
    terms = {name: value.item() for name, value in method(given).items()}
    expected = {"loss_defeat_fg": 0.5 * 3 * foreground, "loss_defeat_bg": 0.5 * 12 * background}
    assert terms == pytest.approx(expected, rel=1e-5)


def test_mask_by_hand():
    # Level 0 has cells of 8, level 1 of 16 pixels; from 32 pixels on a box is on level 1.
    boxes = torch.tensor(
        [
            [9.0, 3.0, 25.0, 17.0],  # 17 x 15: level 0, columns 1 to 2 (25/8 is left out), rows 0 to 1
            [34.0, 34.0, 38.0, 46.0],  # no column left (4, 4): the cell of its corner
            [50.0, 30.0, 90.0, 47.0],  # 41 x 18: 27.2 and level 0; columns from 6 to the edge, rows 3 to 4
            [20.0, -9.0, 50.0, 33.0],  # 31 x 43: 36.5 and level 1; columns 1 to 2, rows 0 to 1
        ]
    )
    fine, coarse = torch.zeros(6, 8), torch.zeros(3, 4)
    fine[0:2, 1:3] = fine[4, 4] = fine[3:5, 6:8] = 1
    coarse[0:2, 1:3] = 1
    masks = box_masks([boxes], SIZES, STRIDES, BASE)
    assert torch.equal(masks[0], fine[None] > 0)
    assert torch.equal(masks[1], coarse[None] > 0)


def test_each_image_has_its_own_boxes():
    boxes = [torch.tensor([[0.0, 0, 10, 10]]), torch.zeros(0, 4), torch.tensor([[24.0, 8, 44, 28]])]
    masks = box_masks(boxes, SIZES, STRIDES, BASE)
    for image, own in enumerate(boxes):
        alone = box_masks([own], SIZES, STRIDES, BASE)
        assert all(torch.equal(m[image], a[0]) for m, a in zip(masks, alone, strict=True))
    assert not masks[0][1].any()
    assert masks[0][0].any()
    assert masks[0][2].any()


def test_a_box_is_on_one_level_as_in_the_release():
    """56 pixels at stride 4 are 112 at stride 8, to twice which the first level goes; with the last pixel counted."""
    for size, level in ((8.0, 0), (223.0 - 0.01, 0), (223.0, 1), (447.0 - 0.01, 1), (447.0, 2), (1e4, 2)):
        masks = box_masks([torch.tensor([[0.0, 0.0, size, size]])], [(4, 4)] * 3, (8, 16, 32))
        assert [bool(mask.any()) for mask in masks] == [level == i for i in range(3)]


def test_boxes_beyond_the_map_stay_on_it():
    boxes = torch.tensor([[500.0, 500.0, 520.0, 520.0], [-30.0, -30.0, -10.0, -10.0]])
    mask = box_masks([boxes], SIZES, STRIDES, BASE)[0][0]
    assert mask[5, 7]
    assert mask[0, 0]
    assert mask.sum() == 2


def test_distance_is_halved_and_meant_over_channels():
    difference = torch.full((2, 4, 3, 5), 0.7)
    mask = (torch.rand(2, 3, 5) > 0.5).float()
    assert decoupled_distance(difference, mask).item() == pytest.approx(0.35)
    assert decoupled_distance(difference, torch.zeros(2, 3, 5)) == 0


def test_gradient_as_that_of_a_loop():
    given = scattered(5, images=2)
    method = stirred(build_method("defeat", context(), base=BASE))
    found = torch.autograd.grad(sum(method(given).values()), given.student.neck)
    leaves = [leaf.detach().double().requires_grad_() for leaf in given.student.neck]
    twin = stirred(build_method("defeat", context(), base=BASE)).double()
    twin.load_state_dict(method.state_dict())
    total, masks = 0.0, box_masks(given.gt_boxes, SIZES, STRIDES, BASE)
    for leaf, teacher, adapt, mask in zip(leaves, given.teacher.neck, twin.adapters, masks, strict=True):
        square = (adapt(leaf) - teacher.detach().double()) ** 2
        for weight, chosen in ((3, mask), (12, ~mask)):
            values = [square[n, :, y, x].sum() for n, y, x in chosen.nonzero().tolist()]
            total = total + weight * sum(values) / max(1, 2 * 8 * len(values)) / 2
    for grad, expected in zip(found, torch.autograd.grad(total, leaves), strict=True):
        torch.testing.assert_close(grad.double(), expected, rtol=1e-4, atol=1e-7)


def test_images_without_boxes_are_all_background():
    given = step()
    given.gt_boxes = [boxes[:0] for boxes in given.gt_boxes]
    method = stirred(build_method("defeat", context()))
    terms = method(given)
    assert terms["loss_defeat_fg"] == 0
    assert terms["loss_defeat_bg"] > 0
    grads = torch.autograd.grad(terms["loss_defeat_fg"], given.student.neck)
    assert not any(grad.any() for grad in grads)


def test_terms_can_be_left_out():
    given = step()
    assert set(build_method("defeat", context(), weight_bg=0.0)(given)) == {"loss_defeat_fg"}
    assert set(build_method("defeat", context(), weight_fg=0.0)(given)) == {"loss_defeat_bg"}


def test_adapters_lead_to_the_teachers_width_and_start_near_zero():
    ctx = context(student_channels=6)
    method = build_method("defeat", ctx)
    assert [adapter.weight.shape for adapter in method.adapters] == [(8, 6, 3, 3)] * 2
    assert 0 < max(adapter.weight.abs().max() for adapter in method.adapters) <= 2e-4
    assert all(value.isfinite() for value in method(step(ctx=ctx)).values())
    assert len(list(build_method("defeat", context()).adapters.parameters())) == 4, "also where widths agree"


def test_only_the_levels_of_boxes_depend_on_the_size():
    full, small = (
        published_settings("defeat", "retinanet", size)
        for size in (FULL, Size(channels=32, positions=533, cells=4, blocks=2, warmup=40))
    )
    assert small == {**full, "base": 7.0}
    assert full["base"] == 14.0
    assert (full["weight_fg"], full["weight_bg"]) == (3.0, 12.0)


def test_bad_base():
    with pytest.raises(MethodError, match=r"base 0\.0 is a size in strides and must be above 0"):
        build_method("defeat", context(), base=0.0)
