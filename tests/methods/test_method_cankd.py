"""CanKD against a form with a matrix of positions by keys, and what it does not see."""

from __future__ import annotations

import pytest
import torch
from support.golden import CLOSE
from support.oracles import cankd as oracle
from support.slopes import assert_slopes
from support.steps import context, step

from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.cankd import CrossNonLocal, instance_distance
from pgd.scaling import FULL, Size, published_settings


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def stirred(method):
    """Batch norms that are not zero, so that the blocks matter."""
    for block in method.blocks:
        torch.nn.init.normal_(block.norm.weight)
        torch.nn.init.normal_(block.norm.bias)
    return method


def parameters_of(block: torch.nn.Module) -> dict:
    return {name: double(value) for name, value in block.named_parameters()}


def by_matrix(method, given) -> float:
    levels = zip(method.adapters, method.blocks, given.student.neck, given.teacher.neck, strict=True)
    return sum(oracle.cankd(double(adapt(s)), double(t), parameters_of(block)) for adapt, block, s, t in levels)


@pytest.mark.parametrize(("seed", "width"), [(0, 8), (1, 8), (2, 5)])
def test_method_by_matrix(seed, width):
    torch.manual_seed(seed)
    ctx = context(student_channels=width)
    method, given = stirred(build_method("cankd", ctx, weight=3.0)), step(seed=seed, ctx=ctx)
    assert method(given)["loss_cankd"].item() == pytest.approx(3 * by_matrix(method, given), rel=1e-5)


def test_at_the_start_the_block_changes_nothing():
    given, method = step(), build_method("cankd", context())
    levels = list(zip(given.student.neck, given.teacher.neck, strict=True))
    for block, (student, teacher) in zip(method.blocks, levels, strict=True):
        assert torch.equal(block(student, teacher), student)
    expected = 10 * sum(instance_distance(s, t) for s, t in levels)
    assert torch.equal(method(given)["loss_cankd"], expected)


def test_gradients_of_student_and_block():
    torch.manual_seed(0)
    method = stirred(build_method("cankd", context(), weight=1.0, levels=1))
    given = step()
    student, teacher = given.student.neck[0], given.teacher.neck[0]
    named = {name: p for name, p in method.blocks[0].named_parameters() if name != "norm.bias"}

    def value(arrays) -> float:
        own = parameters_of(method.blocks[0]) | dict(zip(named, arrays[1:], strict=True))
        return oracle.cankd(arrays[0], double(teacher), own)

    assert_slopes(method(given)["loss_cankd"], (student, *named.values()), value)


def test_the_shift_of_the_batch_norm_has_no_effect():
    torch.manual_seed(0)
    method, given = stirred(build_method("cankd", context())), step()
    before = method(given)["loss_cankd"]
    for block in method.blocks:
        torch.nn.init.normal_(block.norm.bias, std=3.0)
    torch.testing.assert_close(method(given)["loss_cankd"], before)


def test_distance_does_not_see_scale_and_shift_of_a_channel():
    student, teacher = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    other = student * (1 + torch.rand(2, 4, 1, 1)) + torch.randn(2, 4, 1, 1)
    torch.testing.assert_close(
        instance_distance(other, teacher), instance_distance(student, teacher), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(instance_distance(-teacher, teacher), torch.tensor(2.0), rtol=1e-4, atol=0)


def test_images_do_not_mix_but_for_the_batch_norm():
    torch.manual_seed(0)
    block = stirred(build_method("cankd", context())).blocks[0].eval()
    student, teacher = torch.randn(3, 8, 6, 8), torch.randn(3, 8, 6, 8)
    alone = torch.cat([block(s[None], t[None]) for s, t in zip(student, teacher, strict=True)])
    torch.testing.assert_close(block(student, teacher), alone, **CLOSE)


def test_positions_of_the_student_may_be_shuffled_with_it():
    """Each position looks at the teacher by itself: rows in another order give rows in another order."""
    torch.manual_seed(0)
    block = stirred(build_method("cankd", context())).blocks[0]
    student, teacher, order = torch.randn(2, 8, 6, 8), torch.randn(2, 8, 6, 8), torch.randperm(6)
    torch.testing.assert_close(block(student[:, :, order], teacher), block(student, teacher)[:, :, order], **CLOSE)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3)])
def test_small_maps(size):
    block = CrossNonLocal(8)
    torch.nn.init.ones_(block.norm.weight)
    features = torch.randn(1, 8, *size, requires_grad=True)
    loss = instance_distance(block(features, torch.randn(1, 8, *size)), torch.randn(1, 8, *size))
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(features.grad.isfinite().all())


def test_levels_beyond_the_finest_are_left_out():
    ctx = context(num_levels=5, strides=(8, 16, 32, 64, 128))
    assert len(build_method("cankd", ctx).blocks) == 4
    assert len(build_method("cankd", ctx, levels=None).blocks) == 5
    with pytest.raises(MethodError, match="give 1 or more"):
        build_method("cankd", context(), levels=0)


def test_settings_do_not_depend_on_the_size():
    small = Size(channels=32, positions=533, cells=4, blocks=2, warmup=40)
    assert published_settings("cankd", "gfl", small) == published_settings("cankd", "gfl", FULL)


def test_half_precision_is_compared_in_single():
    student, teacher = (torch.randn(2, 16, 40, 40).bfloat16() for _ in range(2))
    torch.testing.assert_close(instance_distance(student, teacher), instance_distance(student.float(), teacher.float()))
