"""ACAM-KD mask by mask, its switch, and what masks do."""

from __future__ import annotations

import pytest
import torch
from support.golden import CLOSE
from support.oracles import acamkd as oracle
from support.slopes import assert_slopes
from support.steps import context, step

from pgd.methods import build_method
from pgd.methods.acamkd import Masks, diversity_loss, masked_distance
from pgd.methods.base import MethodError
from pgd.scaling import FULL, Size, published_settings

TERMS = ("loss_acamkd_channel", "loss_acamkd_spatial", "loss_acamkd_diversity")


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def parameters_of(module: torch.nn.Module) -> dict:
    return {name: double(value) for name, value in module.named_parameters()}


def stirred(method):
    """Masks that differ from a half."""
    for masks in method.masks:
        torch.nn.init.normal_(masks.channel_token, std=2.0)
        torch.nn.init.normal_(masks.spatial_token)
    return method


def by_mask(method, given, multiply=False):
    levels = zip(method.adapters, method.masks, given.student.neck, given.teacher.neck, strict=True)
    return sum(oracle.acamkd(double(a(s)), double(t), parameters_of(m), multiply) for a, m, s, t in levels)


@pytest.mark.parametrize("mask_sum", ["divide", "multiply"])
@pytest.mark.parametrize(("seed", "width"), [(0, 8), (1, 5)])
def test_method_by_mask(seed, width, mask_sum):
    torch.manual_seed(seed)
    ctx = context(student_channels=width)
    method = stirred(build_method("acamkd", ctx, weight=3.0, diversity=0.5, mask_sum=mask_sum))
    given = step(seed=seed, ctx=ctx)
    channel, spatial, diversity = by_mask(method, given, mask_sum == "multiply")
    found = [method(given)[name].item() for name in TERMS]
    assert found == pytest.approx([3 * channel, 3 * spatial, 1.5 * diversity], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("index", "name"), list(enumerate(TERMS)))
def test_gradients_of_student_and_masks(index, name):
    """Nothing is cut off: student and parameters are reached through the masks as well."""
    torch.manual_seed(0)
    method, given = stirred(build_method("acamkd", context(num_levels=1))), step()
    given.student.neck, given.teacher.neck = given.student.neck[:1], given.teacher.neck[:1]
    student, teacher = given.student.neck[0], double(given.teacher.neck[0])
    idle = ("spatial_token", "channel_token", None)[index]
    named = {key: p for key, p in method.masks[0].named_parameters() if key != idle}

    def value(arrays) -> float:
        own = parameters_of(method.masks[0]) | dict(zip(named, arrays[1:], strict=True))
        return oracle.acamkd(arrays[0], teacher, own)[index]

    assert_slopes(method(given)[name], (student, *named.values()), value)


def test_whole_masks_give_mean_squares():
    squares = torch.rand(2, 5)
    found = masked_distance(torch.ones(2, 3, 5), squares, 7, multiply=False)
    torch.testing.assert_close(found, squares.mean() / 7, **CLOSE)


def test_divided_by_its_area_a_mask_of_half_the_height_counts_half():
    squares, masks = torch.rand(2, 5), torch.rand(2, 3, 5)
    whole, half = (masked_distance(scale * masks, squares, 7, multiply=False) for scale in (1, 0.5))
    torch.testing.assert_close(half, whole / 2, **CLOSE)


def test_multiplied_by_its_area_it_counts_an_eighth():
    squares, masks = torch.rand(2, 5), torch.rand(2, 3, 5)
    whole, half = (masked_distance(scale * masks, squares, 7, multiply=True) for scale in (1, 0.5))
    torch.testing.assert_close(half, whole / 8, **CLOSE)


def test_masks_without_overlap_have_no_loss():
    assert diversity_loss(torch.eye(4)[None]).item() == pytest.approx(0, abs=1e-6)


def test_equal_masks_have_the_largest_loss():
    assert diversity_loss(torch.rand(1, 1, 9).expand(2, 6, 9)).item() == pytest.approx(5)


def test_at_the_start_masks_are_about_a_half():
    torch.manual_seed(0)
    given = step()
    both = Masks(8, 6)(given.student.neck[0], given.teacher.neck[0])
    assert [tuple(m.shape) for m in both] == [(2, 6, 8), (2, 6, 48)]
    assert all(bool((m - 0.5).abs().max() < 0.05) for m in both)


def test_images_do_not_mix():
    torch.manual_seed(0)
    masks = Masks(8, 6)
    student, teacher = torch.randn(3, 8, 6, 8), torch.randn(3, 8, 6, 8)
    alone = [masks(s[None], t[None]) for s, t in zip(student, teacher, strict=True)]
    for found, parts in zip(masks(student, teacher), zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(found, torch.cat(parts), **CLOSE)


def test_one_position():
    student = torch.randn(1, 8, 1, 1, requires_grad=True)
    both = Masks(8, 6)(student, torch.randn(1, 8, 1, 1))
    sum(m.sum() for m in both).backward()
    assert bool(student.grad.isfinite().all())


def test_settings_do_not_depend_on_the_size():
    small = Size(channels=32, positions=533, cells=4, blocks=2, warmup=40)
    assert published_settings("acamkd", "gfl", small) == published_settings("acamkd", "gfl", FULL)


def test_bad_settings():
    with pytest.raises(MethodError, match="mask_sum 'times' is not one of divide, multiply"):
        build_method("acamkd", context(), mask_sum="times")
    with pytest.raises(MethodError, match="masks 1 leaves none to differ from"):
        build_method("acamkd", context(), masks=1)
