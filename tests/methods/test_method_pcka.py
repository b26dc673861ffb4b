"""PCKA against Gram matrices of patches and of cells, and what it does not see."""

from __future__ import annotations

import pytest
import torch
from support.golden import CLOSE
from support.oracles import pcka as oracle
from support.slopes import assert_slopes
from support.steps import context, step

from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.pcka import alignments, patch_rows
from pgd.scaling import FULL, Size, published_settings

SMALL = Size(channels=32, positions=533, cells=4, blocks=2, warmup=40)


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def expected(method, given, side) -> tuple[float, float]:
    levels = zip(method.adapters, given.student.neck, given.teacher.neck, strict=True)
    terms = [oracle.pcka(double(adapt(s)), double(t), side) for adapt, s, t in levels]
    return sum(p for p, _ in terms), sum(c for _, c in terms)


@pytest.mark.parametrize(("seed", "width", "side"), [(0, 8, 2), (1, 8, 3), (2, 5, 4)])
def test_method_by_gram_matrices(seed, width, side):
    torch.manual_seed(seed)
    ctx = context(student_channels=width)
    method, given = build_method("pcka", ctx, weight=3.0, side=side), step(seed=seed, ctx=ctx)
    patches, cells = expected(method, given, side)
    terms = {name: value.item() for name, value in method(given).items()}
    assert terms == pytest.approx({"loss_pcka_patches": 3 * patches, "loss_pcka_cells": 3 * cells}, rel=1e-5)


@pytest.mark.parametrize(("term", "index"), [("loss_pcka_patches", 0), ("loss_pcka_cells", 1)])
def test_gradient(term, index):
    given = step()
    method = build_method("pcka", context(), weight=1.0, side=2, levels=1)
    teacher = double(given.teacher.neck[0])
    leaf = given.student.neck[0]
    assert_slopes(method(given)[term], [leaf], lambda arrays: oracle.pcka(arrays[0], teacher, 2)[index])


def test_columns_need_no_matrix_of_cells():
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, 4, 50, generator=g) for _ in range(2))
    rows, _ = alignments(student.mT, teacher.mT)
    torch.testing.assert_close(alignments(student, teacher)[1], rows, **CLOSE)


def test_equal_features_have_nothing_to_learn():
    given = step()
    given.teacher.neck = [f.detach() for f in given.student.neck]
    terms = build_method("pcka", context(), side=2)(given)
    assert all(value.item() == pytest.approx(0, abs=1e-5) for value in terms.values())


def test_scale_of_a_channel_and_sign_do_not_count():
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, 6, 8, generator=g) for _ in range(2))
    other = -student * torch.rand(1, 4, 1, 1, generator=g)
    found = [alignments(patch_rows(s, 2), patch_rows(teacher, 2)) for s in (student, other)]
    torch.testing.assert_close(found[0], found[1], **CLOSE)


def test_one_patch_teaches_nothing_about_patches():
    given = step()
    method = build_method("pcka", context(), side=16)
    terms = method(given)
    assert terms["loss_pcka_patches"].item() == pytest.approx(0, abs=1e-5)
    (gradient,) = torch.autograd.grad(terms["loss_pcka_patches"], given.student.neck[:1])
    assert float(gradient.abs().max()) < 1e-5
    assert terms["loss_pcka_cells"].item() > 1


def test_a_channel_of_zeros():
    given = step()
    given.teacher.neck = [torch.cat((f[:, :1] * 0, f[:, 1:]), dim=1).detach() for f in given.teacher.neck]
    given.student.neck = [(f.detach() * 0).requires_grad_() for f in given.student.neck]
    loss = sum(build_method("pcka", context(), side=2)(given).values())
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss, given.student.neck))
    assert loss.item() == pytest.approx(10 * 2 * 2)


def test_huge_and_minute_features_count_alike():
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, 6, 8, generator=g) for _ in range(2))
    found = [alignments(patch_rows(s, 2), patch_rows(teacher, 2)) for s in (student, 1e12 * student, 1e-9 * student)]
    torch.testing.assert_close(found[1], found[0], **CLOSE)
    torch.testing.assert_close(found[2], found[0], **CLOSE)


def test_published_settings():
    assert published_settings("pcka", "gfl") == {"weight": 10.0, "side": 16, "transposed": True, "levels": 4}
    assert not published_settings("pcka", "fcos")["transposed"]
    assert published_settings("pcka", "gfl", SMALL) == {**published_settings("pcka", "gfl", FULL), "side": 8}


def test_bad_settings():
    with pytest.raises(MethodError, match="side 0 is a number of cells"):
        build_method("pcka", context(), side=0)
    with pytest.raises(MethodError, match="give 1 or more"):
        build_method("pcka", context(), levels=0)
