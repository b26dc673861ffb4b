"""CWD against released values and against a transcription by loops; class logits as maps."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from support.golden import CLOSE, assert_close, load, value_and_grad
from support.oracles import cwd as oracle
from support.steps import SIZES, context, grid, step

from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.cwd import channelwise_divergence
from pgd.methods.levels import class_maps
from pgd.scaling import published_settings


def double(maps: list[torch.Tensor]) -> list:
    return [m.detach().double().numpy() for m in maps]


def repeated(images: int, per_position: int, seed: int = 0):
    """A step with ``per_position`` predictions a position, of which only the class logits are there."""
    generator, ctx = torch.Generator().manual_seed(seed), context(per_position=per_position)
    plain = grid(images)
    positions = dataclasses.replace(plain, per_position=per_position)

    def view() -> SimpleNamespace:
        logits = torch.randn(images, len(plain.centers) * per_position, ctx.num_classes, generator=generator)
        return SimpleNamespace(class_logits=logits.requires_grad_())

    return ctx, SimpleNamespace(student=view(), teacher=view(), grid=positions)


@pytest.mark.parametrize("case", [0, 1])
def test_released_value_and_gradient(case):
    meta, a = load(f"cwd_{case}")

    def loss(student):
        return meta["weight"] * channelwise_divergence(student, a["teacher"], meta["tau"])

    value, grad = value_and_grad(loss, a["student"])
    assert_close(value, a["loss"])
    assert_close(grad, a["grad"])
    scale = a["grad"].abs().max()
    assert_close(grad / scale, a["grad"] / scale)


@pytest.mark.parametrize("case", [0, 1])
def test_cross_entropy_differs_by_the_teachers_entropy_alone(case):
    meta, a = load(f"cwd_{case}")
    tau, teacher = meta["tau"], a["teacher"]
    value, grad = value_and_grad(lambda s: channelwise_divergence(s, teacher, tau, cross_entropy=True), a["student"])
    assert_close(grad, a["grad"] / meta["weight"])
    q = (teacher.double().flatten(2) / tau).softmax(dim=2)
    entropy = -(q * q.log()).sum(dim=2).mean() * tau**2
    assert_close(value - a["loss"] / meta["weight"], entropy)


@pytest.mark.parametrize(("seed", "tau", "cross_entropy"), [(0, 1.0, False), (1, 2.5, False), (2, 0.7, True)])
def test_neck_by_loops(seed, tau, cross_entropy):
    given, settings = step(seed=seed), {"tau": tau, "cross_entropy": cross_entropy}
    terms = build_method("cwd", context(), place="neck", weight=3.0, **settings)(given)
    levels = zip(double(given.student.neck), double(given.teacher.neck), strict=True)
    expected = 3 * sum(oracle.cwd(s, t, tau, cross_entropy) for s, t in levels)
    assert terms["loss_cwd"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("per_position", [1, 3])
def test_classes_by_loops(per_position):
    ctx, given = repeated(2, per_position)
    terms = build_method("cwd", ctx)(given)
    student, teacher = (
        oracle.class_maps(view.class_logits.detach().double().numpy(), SIZES, per_position)
        for view in (given.student, given.teacher)
    )
    expected = 5 * sum(oracle.cwd(s, t, 1.0) for s, t in zip(student, teacher, strict=True))
    assert terms["loss_cwd"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("per_position", [1, 3])
def test_class_maps_by_loops(per_position):
    _, given = repeated(2, per_position)
    expected = oracle.class_maps(given.student.class_logits.detach().numpy(), SIZES, per_position)
    for actual, by_hand in zip(class_maps(given.student.class_logits, given.grid), expected, strict=True):
        torch.testing.assert_close(actual.detach(), torch.from_numpy(by_hand).float())


def test_gradient_of_class_maps_by_differences():
    _, given = repeated(1, 2)
    student = given.student.class_logits.detach().double().requires_grad_()
    teacher = class_maps(given.teacher.class_logits.detach().double(), given.grid)

    def naive(logits: torch.Tensor) -> torch.Tensor:
        levels = zip(class_maps(logits, given.grid), teacher, strict=True)
        pairs = [(s.flatten(2).softmax(2), t.flatten(2).softmax(2)) for s, t in levels]
        return 5 * sum((q * (q / p).log()).sum() / (p.size(0) * p.size(1)) for p, q in pairs)

    assert torch.autograd.gradcheck(naive, (student,), atol=1e-6)
    (expected,) = torch.autograd.grad(naive(student), student)
    total = build_method("cwd", context(per_position=2))(given)["loss_cwd"]
    (actual,) = torch.autograd.grad(total, given.student.class_logits)
    torch.testing.assert_close(actual, expected.float(), **CLOSE)


def test_equal_maps_and_a_shift_of_a_channel_cost_nothing():
    maps = torch.randn(2, 4, 5, 6)
    shifted = maps + torch.randn(2, 4, 1, 1)
    torch.testing.assert_close(channelwise_divergence(shifted, maps, 2.0), torch.tensor(0.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", ["neck", "classes"])
def test_coarser_levels_are_left_out(place):
    given = step()
    one, all_of_them, more = (
        build_method("cwd", context(), place=place, levels=levels)(given)["loss_cwd"] for levels in (1, None, 4)
    )
    torch.testing.assert_close(all_of_them, more)
    leaf = {"neck": given.student.neck[1], "classes": given.student.class_logits}[place]
    (grad,) = torch.autograd.grad(one, leaf, allow_unused=True)
    coarse = grad if place == "neck" else grad[:, 48:]
    assert coarse is None or not coarse.any()
    assert one < all_of_them


def test_widths_get_an_adapter_for_each_level_that_is_taken():
    ctx = context(student_channels=6)
    method = build_method("cwd", ctx, place="neck", levels=1)
    given = step(ctx=ctx)
    assert [p.shape for p in method.parameters()] == [(8, 6, 1, 1), (8,)]
    term = method(given)["loss_cwd"]
    expected = 5 * channelwise_divergence(method.adapters[0](given.student.neck[0]), given.teacher.neck[0], 1.0)
    torch.testing.assert_close(term, expected)
    assert not list(build_method("cwd", ctx).parameters()), "class maps need none"


def test_needs_follow_the_place():
    assert build_method("cwd", context()).needs == {"predictions"}
    assert build_method("cwd", context(), place="neck").needs == {"neck"}


def test_published_settings():
    assert published_settings("cwd", "gfl")["place"] == "classes"
    assert published_settings("cwd", "retinanet").items() >= {"place": "neck", "levels": 4, "weight": 5.0}.items()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"place": "head"}, "neck, classes"), ({"levels": 0}, "give 1 or more"), ({"tau": 0.0}, "above 0")],
)
def test_errors(settings, message):
    with pytest.raises(MethodError, match=message):
        build_method("cwd", context(), **settings)


def test_half_precision_is_summed_in_single():
    student, teacher = torch.randn(2, 8, 20, 20), torch.randn(2, 8, 20, 20)
    halves = [m.bfloat16() for m in (student, teacher)]
    expected = channelwise_divergence(*(m.float() for m in halves), 1.0)
    torch.testing.assert_close(channelwise_divergence(*halves, 1.0), expected)
