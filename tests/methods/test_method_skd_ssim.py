"""SKD-SSIM against windows taken one by one, and its edges."""

from __future__ import annotations

import pytest
import torch
from support.golden import CLOSE
from support.oracles import skd_ssim as oracle
from support.slopes import assert_slopes
from support.steps import context, step

from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.skd_ssim import in_range, similarity, window_means
from pgd.scaling import FULL, Size, published_settings

SMALL = Size(channels=32, positions=533, cells=4, blocks=2, warmup=40)


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def by_windows(method, given, **settings) -> float:
    levels = zip(method.adapters, given.student.neck, given.teacher.neck, strict=True)
    return sum(oracle.skd_ssim(double(adapt(s)), double(t), **settings) for adapt, s, t in levels)


@pytest.mark.parametrize(("seed", "width", "scope"), [(0, 8, "image"), (1, 8, "channel"), (2, 5, "batch")])
def test_method_by_windows(seed, width, scope):
    torch.manual_seed(seed)
    ctx = context(student_channels=width)
    method, given = build_method("skd_ssim", ctx, weight=3.0, scope=scope), step(seed=seed, ctx=ctx)
    expected = 3 * by_windows(method, given, scope=scope)
    assert method(given)["loss_skd_ssim"].item() == pytest.approx(expected, rel=1e-4)


def test_a_narrow_window():
    given, method = step(), build_method("skd_ssim", context(), weight=1.0, deviation=0.75)
    expected = by_windows(method, given, deviation=0.75, reach=2)
    assert method(given)["loss_skd_ssim"].item() == pytest.approx(expected, rel=1e-4)


def test_gradient_through_the_range_as_well():
    given, method = step(1), build_method("skd_ssim", context(), weight=1.0)
    leaf, teacher = given.student.neck[0], double(given.teacher.neck[0])
    rest = oracle.skd_ssim(double(given.student.neck[1]), double(given.teacher.neck[1]))
    assert_slopes(
        method(given)["loss_skd_ssim"], [leaf], lambda arrays: oracle.skd_ssim(arrays[0], teacher) + rest, rel=3e-3
    )


@pytest.mark.parametrize("length", [1, 2, 3, 7, 30])
def test_weights_of_a_window_add_up_to_one(length):
    weights = window_means(length, 1.5, torch.zeros(1))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(length), **CLOSE)


def test_weights_inside_are_gaussian():
    row = window_means(30, 1.5, torch.zeros(1, dtype=torch.float64))[15, 10:21]
    expected = torch.exp(-(torch.arange(-5.0, 6.0, dtype=torch.float64) ** 2) / 4.5)
    torch.testing.assert_close(row, expected / expected.sum())


def test_what_is_alike_has_similarity_one():
    features = torch.rand(2, 3, 6, 8)
    torch.testing.assert_close(similarity(features, features, 1.5), torch.ones(2, 3, 6, 8), rtol=0, atol=1e-3)


def test_scale_and_shift_of_an_image_do_not_count():
    given, method = step(), build_method("skd_ssim", context())
    before = method(given)["loss_skd_ssim"]
    given.student.neck = [3 * f + torch.tensor([2.0, -7.0])[:, None, None, None] for f in given.student.neck]
    torch.testing.assert_close(method(given)["loss_skd_ssim"], before, rtol=1e-4, atol=1e-6)


def test_images_do_not_mix():
    method = build_method("skd_ssim", context())
    alone = [method(step(1, seed))["loss_skd_ssim"] for seed in (0, 1)]
    both, first, second = step(2), step(1, 0), step(1, 1)
    for view in ("student", "teacher"):
        pairs = zip(getattr(first, view).neck, getattr(second, view).neck, strict=True)
        getattr(both, view).neck = [torch.cat(pair) for pair in pairs]
    torch.testing.assert_close(method(both)["loss_skd_ssim"], sum(alone) / 2, **CLOSE)


def test_a_map_of_one_value():
    flat = torch.full((1, 2, 1, 1), 3.0, requires_grad=True)
    loss = similarity(in_range(flat, "channel"), in_range(flat.detach(), "channel"), 1.5).mean()
    assert loss.item() == pytest.approx(1)
    assert bool(torch.autograd.grad(loss, flat)[0].isfinite().all())


def test_settings_by_size():
    full = {"weight": 4.0, "deviation": 1.5, "scope": "image"}
    assert published_settings("skd_ssim", "gfl", FULL) == full
    assert published_settings("skd_ssim", "gfl", SMALL) == {**full, "deviation": 0.75}


def test_bad_settings():
    with pytest.raises(MethodError, match="scope 'all' is not one of image, channel, batch"):
        build_method("skd_ssim", context(), scope="all")
    with pytest.raises(MethodError, match="must be positive"):
        build_method("skd_ssim", context(), deviation=0.0)
