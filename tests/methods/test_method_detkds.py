"""DetKDS against a form by values, and what its norms do not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.golden import CLOSE
from support.oracles import detkds as oracle
from support.slopes import assert_slopes
from support.steps import SIZES, context, step

from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.detkds import filled_up, global_form, kept, masked_form, patch_form
from pgd.scaling import published_settings


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def padded(seed: int = 0, ctx=None):
    """Three images in one batch, two of them smaller than it; the last has no objects."""
    given = step(3, seed, ctx)
    given.image_sizes = [(48, 64), (33, 50), (40, 64)]
    return given


def masks_of(given, level: int):
    """Foreground and background ``[N, 1, H, W]``."""
    images = zip(given.gt_boxes, given.image_sizes, strict=True)
    both = [oracle.masks(boxes.tolist(), size, SIZES[level]) for boxes, size in images]
    return [np.stack(masks)[:, None] for masks in zip(*both, strict=True)]


@pytest.mark.parametrize(("seed", "group"), [(0, 2), (1, 1), (2, 3)])
def test_global_term_by_values(seed, group):
    given = padded(seed)
    levels = zip(given.student.neck, given.teacher.neck, strict=True)
    expected = sum(np.abs(oracle.whole(double(s), group) - oracle.whole(double(t), group)).mean() for s, t in levels)
    terms = build_method("detkds", context(), weight=0.5, group=group)(given)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {"loss_detkds_global": 5 * expected}, rel=1e-5
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_patches_by_values(seed):
    given = padded(seed)
    terms = build_method("detkds", context(), **published_settings("detkds", "retinanet"))(given)
    expected = [0.0, 0.0]
    for level, pair in enumerate(zip(given.student.neck, given.teacher.neck, strict=True)):
        for which, mask in enumerate(masks_of(given, level)):
            student, teacher = (oracle.patches(double(f) * mask) for f in pair)
            expected[which] += np.abs(student - teacher).mean()
    assert terms["loss_detkds_fg"].item() == pytest.approx(2 * expected[0], rel=1e-5)
    assert terms["loss_detkds_bg"].item() == pytest.approx(expected[1], rel=1e-5)
    alone = build_method("detkds", context(), weight_global=6.0)(given)["loss_detkds_global"]
    assert torch.equal(terms["loss_detkds_global"], alone)


@pytest.mark.parametrize("seed", [0, 1])
def test_masked_by_values(seed, monkeypatch):
    drawn = []

    def keep(features, share):
        drawn.append(kept(features, share))
        return drawn[-1]

    monkeypatch.setattr("pgd.methods.detkds.kept", keep)
    torch.manual_seed(seed)
    given = padded(seed)
    terms = build_method("detkds", context(), **published_settings("detkds", "fcos"))(given)
    assert len(drawn) == 8, "for each of student, teacher, foreground and background of two levels"
    expected = [0.0, 0.0]
    for level, pair in enumerate(zip(given.student.neck, given.teacher.neck, strict=True)):
        for which, mask in enumerate(masks_of(given, level)):
            own = [double(drawn.pop(0)) for _ in pair]
            student, teacher = (oracle.masked(double(f) * mask, k) for f, k in zip(pair, own, strict=True))
            expected[which] += np.abs(student - teacher).mean()
    assert terms["loss_detkds_fg"].item() == pytest.approx(2 * expected[0], rel=1e-5)
    assert terms["loss_detkds_bg"].item() == pytest.approx(expected[1], rel=1e-5)


def test_gradients():
    given, second = padded(3), double(padded(3).teacher.neck[1])
    student = given.student.neck[1]
    foreground, background = masks_of(given, 1)

    def value(arrays) -> float:
        total = 10 * np.abs(oracle.whole(arrays[0], 2) - oracle.whole(second, 2)).mean()
        for weight, mask in ((3, foreground), (4, background)):
            total += weight * np.abs(oracle.patches(arrays[0] * mask) - oracle.patches(second * mask)).mean()
        return total

    method = build_method("detkds", context(), weight_fg=3.0, weight_bg=4.0)
    assert_slopes(sum(method(given).values()), (student,), value)
    still = build_method("detkds", context(), weight_global=0.0, weight_fg=1.0, form="masked", keep=1.0)
    everywhere = np.ones((3, 1, *SIZES[1]))

    def masked_value(arrays) -> float:
        pair = [oracle.masked(f * foreground, everywhere) for f in (arrays[0], second)]
        return np.abs(pair[0] - pair[1]).mean()

    assert_slopes(sum(still(given).values()), (student,), masked_value)


def test_gradient_is_finite_where_masks_leave_nothing():
    given = padded()
    method = build_method(
        "detkds",
        context(),
        **published_settings("detkds", "fcos"),
    )
    sum(method(given).values()).backward()
    assert all(bool(f.grad.isfinite().all()) and f.grad.abs().max() < 100 for f in given.student.neck)


def test_one_image_alone_is_reduced_to_signs():
    features = torch.randn(1, 3, 4, 6)
    assert set(global_form(features, 2).unique().tolist()) == {-1.0, 1.0}


def test_groups_are_on_their_own():
    features = torch.randn(4, 3, 5, 7)
    halves = torch.cat([global_form(part, 2) for part in features.split(2)])
    assert torch.equal(global_form(features, 2), halves)
    assert not torch.allclose(global_form(features, 4), halves)
    order = [1, 0, 3, 2]
    torch.testing.assert_close(global_form(features[order], 2), halves[order], **CLOSE)


def test_norms_do_not_see_scale():
    features = torch.randn(2, 4, 8, 8)
    cells = (1 + torch.rand(2, 4, 2, 2)).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(patch_form(features * cells), patch_form(features), **CLOSE)
    places = 1 + torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(masked_form(features * places, 1.0), masked_form(features, 1.0), **CLOSE)


def test_equal_features_cost_nothing():
    given = padded()
    given.student.neck = given.teacher.neck
    settings = published_settings("detkds", "retinanet")
    assert all(value == 0 for value in build_method("detkds", context(), **settings)(given).values())


def test_filling_up():
    assert filled_up(torch.ones(1, 1, 5, 8), 4).shape == (1, 1, 8, 8)
    assert filled_up(torch.ones(1, 1, 4, 2), 2).shape == (1, 1, 4, 2)
    assert filled_up(torch.ones(1, 1, 3, 3), 2).sum() == 9


def test_share_of_positions_that_are_kept():
    torch.manual_seed(0)
    mask = kept(torch.zeros(4, 7, 100, 100), 0.35)
    assert mask.shape == (4, 1, 100, 100)
    assert mask.mean().item() == pytest.approx(0.35, abs=0.01)
    assert kept(torch.zeros(1, 1, 9, 9), 1.0).all()


def test_what_is_needed():
    assert build_method("detkds", context()).needs == {"neck"}
    assert build_method("detkds", context(), weight_bg=1.0).needs == {"neck", "ground_truth"}
    assert set(build_method("detkds", context(), weight_bg=1.0)(step())) == {"loss_detkds_global", "loss_detkds_bg"}
    assert not list(build_method("detkds", context()).parameters())


def test_widths_are_bridged():
    ctx = context(student_channels=5)
    method, given = build_method("detkds", ctx), padded(ctx=ctx)
    term = method(given)["loss_detkds_global"]
    adapted = [double(adapt(s)) for adapt, s in zip(method.adapters, given.student.neck, strict=True)]
    levels = zip(adapted, given.teacher.neck, strict=True)
    expected = sum(np.abs(oracle.whole(s, 2) - oracle.whole(double(t), 2)).mean() for s, t in levels)
    assert term.item() == pytest.approx(10 * expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "signs"}, "'signs' is not one of patches, masked"),
        ({"keep": 0.0}, r"must be in \(0, 1\]"),
        ({"group": 0}, "give 1 or more"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(MethodError, match=message):
        build_method("detkds", context(), **settings)
