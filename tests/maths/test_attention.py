"""Attention maps and the PGD losses against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pgd.maths.attention import (
    channel_attention,
    pooled_channel_attention,
    spatial_attention,
    weighted_square_distance,
)
from pgd.methods import pgd
from pgd.methods.fgd import fgd_focal_loss
from pgd.methods.pgd import pgd_cls_weights, pgd_reg_loss

DOUBLE = {"dtype": torch.float64}
CLS = {"alpha": 0.04, "beta": 0.02, "delta": 8e-4, "temperature": 0.8}
REG = {"gamma": 0.064, "delta": 8e-4, "temperature": 0.8}
N, C, H, W = 3, 8, 6, 7


def features(seed: int, scale: float = 1.0, n: int = N) -> torch.Tensor:
    return scale * torch.randn(n, C, H, W, generator=torch.Generator().manual_seed(seed), **DOUBLE).relu()


def masks(seed: int = 0, n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights on about a third of the positions of each image, background on the rest of them."""
    g = torch.Generator().manual_seed(seed)
    weights = torch.rand(n, H, W, generator=g, **DOUBLE)
    foreground = weights * (torch.rand(n, H, W, generator=g) < 0.3)
    return foreground, (foreground == 0).to(weights.dtype)


def pgd_cls_loss(student, teacher, foreground, background, mixed=False, *, delta, temperature, **masking):
    """L_cls of masks; ``mixed``: every image's weights weigh every image's features, as released (B1)."""
    weights = pgd_cls_weights(foreground, background, **masking)
    if mixed:
        weights = weights.sum(dim=0, keepdim=True)
    return pgd.pgd_cls_loss(student, teacher, weights, delta=delta, temperature=temperature)


def flat(value: float) -> torch.Tensor:
    return torch.full((N, C, H, W), value, **DOUBLE)


@pytest.mark.parametrize("temperature", [0.1, 0.8, 5.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, -3.0, 1e4])
def test_every_attention_map_has_mean_one(scale, temperature):
    f = features(1, scale)
    ones = torch.ones(N, **DOUBLE)
    assert_close(spatial_attention(f, temperature).mean(dim=(1, 2)), ones)
    assert_close(pooled_channel_attention(f, temperature).mean(dim=1), ones)
    assert_close(channel_attention(f, temperature).mean(dim=1), torch.ones(N, H, W, **DOUBLE))


def test_attention_of_constant_features_is_one():
    for attention in (spatial_attention, channel_attention, pooled_channel_attention):
        value = attention(flat(-2.5), 0.8)
        assert_close(value, torch.ones_like(value))


def test_attention_by_hand():
    """Two positions of activity 0 and T log 3 share H W = 2 as 1:3; so do two channels."""
    step = 0.5 * float(torch.tensor(3.0, **DOUBLE).log())
    f = torch.tensor([[[[0.0, -step]], [[0.0, step]]]], **DOUBLE)
    assert_close(spatial_attention(f, 0.5), torch.tensor([[[0.5, 1.5]]], **DOUBLE))
    turned = f.transpose(1, 3)
    expected = torch.tensor([0.5, 1.5], **DOUBLE)
    assert_close(channel_attention(turned, 0.5), expected[None, :, None, None].expand(1, 2, 1, 2))
    assert_close(pooled_channel_attention(turned, 0.5), expected[None])


def test_weighted_square_distance_broadcasts_its_weight():
    s, t, weight = features(2), features(3), masks()[0].unsqueeze(1)
    gap = [[(weight[i, 0] * (s[i, c] - t[i, c]) ** 2).sum() for c in range(C)] for i in range(N)]
    assert_close(weighted_square_distance(s, t, weight), torch.tensor(gap, **DOUBLE).sum(dim=1))


@pytest.mark.parametrize("mixed", [False, True])
def test_student_equal_to_teacher_costs_nothing(mixed):
    f = features(4)
    assert float(pgd_cls_loss(f, f.clone(), *masks(), mixed=mixed, **CLS)) == 0
    assert float(pgd_reg_loss(f, f.clone(), masks()[0], **REG)) == 0


def test_constant_gap_has_the_value_of_the_formula():
    """w (alpha C d^2 mean_n(sum W / #W) + beta C d^2); gamma d^2 mean W for regression."""
    d, (foreground, background) = 0.3, masks()
    share = foreground.sum(dim=(1, 2)) / (foreground != 0).sum(dim=(1, 2))
    expected = 1.5 * C * d**2 * (CLS["alpha"] * share.mean() + CLS["beta"])
    value = pgd_cls_loss(flat(1 + d), flat(1.0), foreground, background, level_weight=1.5, **CLS)
    assert_close(value, expected)
    expected = REG["gamma"] * d**2 * foreground.sum() / (foreground != 0).sum()
    assert_close(pgd_reg_loss(flat(1 + d), flat(1.0), foreground, **REG), expected)


def test_level_weight_scales_the_features_and_not_the_attention():
    s, t, both = features(5), features(6), masks()
    one, two = (pgd_cls_loss(s, t, *both, level_weight=w, **CLS) for w in (1.0, 2.0))
    bare = pgd_cls_loss(s, t, *both, level_weight=1.0, **{**CLS, "delta": 0.0})
    assert_close(two - one, bare)
    distance = (spatial_attention(s, 0.8) - spatial_attention(t, 0.8)).abs().sum() / N
    distance += (channel_attention(s, 0.8) - channel_attention(t, 0.8)).abs().sum() / (N * H * W)
    assert_close(one - bare, CLS["delta"] * distance)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_batch_loss_is_the_mean_of_its_images(seed):
    """The released mixing of a batch's masks fails it, and gives N times too much or so."""
    s, t, (foreground, background) = features(7 + seed), features(17 + seed), masks(seed)
    one = [slice(i, i + 1) for i in range(N)]
    for mixed in (False, True):
        settings = {**CLS, "mixed": mixed}
        whole = pgd_cls_loss(s, t, foreground, background, **settings)
        alone = [pgd_cls_loss(s[i], t[i], foreground[i], background[i], **settings) for i in one]
        mean = torch.stack(alone).mean()
        if mixed:
            assert 1.5 * mean < whole < 4.5 * mean
        else:
            assert_close(whole, mean)


def test_mixed_batch_is_the_cross_formula():
    """(1/N) sum_i sum_j <mask_i, P_j A_j D_j^2>, and nothing new for one image."""
    s, t, (foreground, background) = features(8), features(9), masks(4)
    bare = {**CLS, "delta": 0.0}
    mask = [
        CLS["alpha"] * f / (f != 0).sum() + CLS["beta"] * b / (b != 0).sum()
        for f, b in zip(foreground, background, strict=True)
    ]
    spatial, channel = spatial_attention(t, 0.8), channel_attention(t, 0.8)
    gap = [spatial[j] * (channel[j] * (s[j] - t[j]) ** 2).sum(dim=0) for j in range(N)]
    expected = sum((mask[i] * gap[j]).sum() for i in range(N) for j in range(N)) / N
    assert_close(pgd_cls_loss(s, t, foreground, background, mixed=True, **bare), expected)
    first = s[:1], t[:1], foreground[:1], background[:1]
    assert_close(pgd_cls_loss(*first, mixed=True, **CLS), pgd_cls_loss(*first, **CLS))


def test_image_without_foreground_or_background():
    """An empty mask adds nothing of its kind: only the attention terms are left."""
    s, t, nothing = features(10).requires_grad_(), features(11), torch.zeros(N, H, W, **DOUBLE)
    foreground, background = masks()
    bare = {**CLS, "delta": 0.0}
    both = pgd_cls_loss(s, t, foreground, background, **bare)
    parts = pgd_cls_loss(s, t, foreground, nothing, **bare), pgd_cls_loss(s, t, nothing, background, **bare)
    assert_close(sum(parts), both)
    assert not pgd_cls_loss(s, t, nothing, nothing, **bare).any()
    empty = pgd_reg_loss(s, t, nothing, **REG)
    empty.backward()
    assert not empty.any()
    assert not s.grad.any()


def test_regression_looks_at_the_foreground_alone():
    s, t, foreground = features(12).requires_grad_(), features(13), masks()[0]
    pgd_reg_loss(s, t, foreground, **REG).backward()
    touched = (s.grad != 0).any(dim=1)
    assert touched.any()
    assert not touched[foreground == 0].any()


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_half_precision_features(scale, mixed):
    """bfloat16 features with single precision masks, as under autocast: finite, and near the exact value."""
    s, t = features(14, scale), features(15, scale)
    half = s.bfloat16().requires_grad_(), t.bfloat16()
    for loss, exact_masks, settings in (
        (pgd_cls_loss, masks(), {**CLS, "mixed": mixed}),
        (pgd_reg_loss, masks()[:1], REG),
    ):
        value = loss(*half, *(m.float() for m in exact_masks), **settings)
        (grad,) = torch.autograd.grad(value, half[0])
        assert bool(value.isfinite())
        assert bool(grad.isfinite().all())
        assert bool(grad.any())
        exact = loss(half[0].detach().double(), half[1].double(), *exact_masks, **settings)
        assert float(value.detach()) == pytest.approx(float(exact), rel=0.05)


def test_the_spatial_half_has_a_weight_of_its_own():
    """It is linear in it, and what it weighs is the distance of the spatial maps."""
    s, t = features(5), features(6)
    weights = pgd_cls_weights(*masks(), alpha=0.0, beta=0.0)
    settings = {"delta": 0.5, "temperature": 0.8}
    none, one, three = (pgd.pgd_cls_loss(s, t, weights, spatial_ratio=r, **settings) for r in (0.0, 1.0, 3.0))
    maps = [spatial_attention(f, 0.8) for f in (s, t)]
    distance = (maps[0] - maps[1]).abs().sum() / N
    assert_close(one - none, 0.5 * distance)
    assert_close(three - none, 1.5 * distance)
    nothing = torch.zeros(N, H, W, **DOUBLE)
    focal = {"alpha": 0.0, "beta": 0.0, "gamma": 0.5, "temperature": 0.8}
    none, three = (fgd_focal_loss(s, t, nothing, nothing, spatial_ratio=r, **focal) for r in (0.0, 3.0))
    assert_close(three - none, 1.5 * distance)
