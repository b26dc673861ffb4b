"""MGD by loops, its mask, and its adapters."""

from __future__ import annotations

import pytest
import torch
from support.golden import CLOSE
from support.oracles import mgd as oracle
from support.steps import context, step

from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.mgd import random_mask, square_distance
from pgd.scaling import FULL, Size, published_settings


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def by_loops(method, given, seed: int) -> float:
    """The sum over levels without alpha, with the masks that the method draws under ``seed``."""
    torch.manual_seed(seed)
    total = 0.0
    for level, (student, teacher) in enumerate(zip(given.student.neck, given.teacher.neck, strict=True)):
        adapted = method.adapters[level](student)
        mask = random_mask(adapted, method.mask_ratio)
        first, second = method.generators[level][0], method.generators[level][2]
        convolutions = [(double(conv.weight), double(conv.bias)) for conv in (first, second)]
        total += oracle.mgd(double(adapted), double(teacher), double(mask), *convolutions)
    return total


@pytest.mark.parametrize(("seed", "ratio", "width"), [(0, 0.65, 8), (1, 0.3, 8), (2, 0.0, 8), (3, 0.65, 5)])
def test_method_by_loops(seed, ratio, width):
    ctx = context(student_channels=width)
    method, given = build_method("mgd", ctx, alpha=0.01, mask_ratio=ratio), step(seed=seed, ctx=ctx)
    torch.manual_seed(seed)
    term = method(given)["loss_mgd"]
    assert term.item() == pytest.approx(0.01 * by_loops(method, given, seed), rel=1e-5)


def test_gradient_by_differences():
    """Of the student's features and of the generators, against a naive form in float64 that is checked itself."""
    ctx = context(student_channels=2, teacher_channels=2)
    method, given = build_method("mgd", ctx, alpha=1.0), step(ctx=ctx)
    student, teacher = given.student.neck[1].detach(), given.teacher.neck[1].detach().double()
    mask = random_mask(student, 0.5)
    generate = method.generators[1]
    parameters = [p.detach().double().requires_grad_() for p in generate.parameters()]

    def naive(features: torch.Tensor, w1, b1, w2, b2) -> torch.Tensor:
        hidden = torch.conv2d(features * mask, w1, b1, padding=1).relu()
        return ((torch.conv2d(hidden, w2, b2, padding=1) - teacher) ** 2).sum() / 2

    inputs = (student.double().requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(naive, inputs, atol=1e-5, rtol=1e-4)
    expected = torch.autograd.grad(naive(*inputs), inputs)
    leaf = student.clone().requires_grad_()
    loss = square_distance(generate(leaf * mask), teacher)
    actual = torch.autograd.grad(loss, (leaf, *generate.parameters()))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e.float(), rtol=1e-4, atol=1e-4)


def test_mask_hides_positions_of_all_channels():
    torch.manual_seed(0)
    mask = random_mask(torch.zeros(4, 7, 100, 100), 0.65)
    assert mask.shape == (4, 1, 100, 100)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(0.35, abs=0.01)
    assert not torch.equal(mask[0], mask[1]), "drawn for each image"
    assert random_mask(torch.zeros(1, 1, 50, 50), 0.0).all()


def test_each_step_and_level_draws_anew():
    method, given = build_method("mgd", context()), step()
    first, second = (method(given)["loss_mgd"].item() for _ in range(2))
    assert first != second


def test_hidden_positions_count_in_the_distance_but_get_no_gradient(monkeypatch):
    masks = []

    def keep(features, ratio):
        masks.append(random_mask(features, ratio))
        return masks[-1]

    monkeypatch.setattr("pgd.methods.mgd.random_mask", keep)
    given = step()
    build_method("mgd", context())(given)["loss_mgd"].backward()
    for student, mask in zip(given.student.neck, masks, strict=True):
        assert (student.grad * mask).any()
        assert not (student.grad * (1 - mask)).any(), "what is hidden cannot be learned from"


def test_mean_over_images():
    student, teacher = torch.randn(1, 3, 4, 5), torch.randn(1, 3, 4, 5)
    twice = square_distance(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1))
    torch.testing.assert_close(twice, square_distance(student, teacher), **CLOSE)


def test_parameters():
    names = {name for name, _ in build_method("mgd", context()).named_parameters()}
    assert names == {
        f"generators.{level}.{i}.{kind}" for level in (0, 1) for i in (0, 2) for kind in ("weight", "bias")
    }
    assert len(list(build_method("mgd", context(student_channels=5)).parameters())) == 8 + 4


def test_alpha_goes_with_channels_and_positions():
    assert published_settings("mgd", "retinanet")["alpha"] == 2e-5
    size = Size(FULL.channels // 8, FULL.positions // 10, FULL.cells, FULL.blocks, FULL.warmup)
    assert published_settings("mgd", "retinanet", size)["alpha"] == pytest.approx(1.6e-3)


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_errors(ratio):
    with pytest.raises(MethodError, match="must be in"):
        build_method("mgd", context(), mask_ratio=ratio)


def test_half_precision_is_summed_in_single():
    student, teacher = (torch.randn(2, 16, 40, 40).bfloat16() for _ in range(2))
    torch.testing.assert_close(square_distance(student, teacher), square_distance(student.float(), teacher.float()))
