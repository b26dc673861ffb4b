"""PGD on the neck: its own loss, with the neck's features where the towers' would be."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support import steps

from pgd.methods.base import MethodError
from pgd.methods.pgd import PGD
from pgd.methods.pgd_neck import PGDNeck

#: as many positions as the boxes of a made-up step have
TOPK = 5


def moved(view: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(view), "cls_tower": view.neck, "reg_tower": view.neck, "neck": None})


def test_it_is_pgd_of_a_pair_whose_towers_are_the_necks():
    step = steps.step(3)
    ours = PGDNeck(steps.context(), topk=TOPK)(step)
    theirs = PGD(steps.context(), topk=TOPK)(replace(step, student=moved(step.student), teacher=moved(step.teacher)))
    assert list(ours) == ["loss_pgd_neck_cls", "loss_pgd_neck_reg"]
    assert list(ours.values()) == list(theirs.values())
    elsewhere = PGD(steps.context(), topk=TOPK)(step)
    assert not torch.isclose(ours["loss_pgd_neck_cls"], elsewhere["loss_pgd_cls"]), "the towers are others"


def test_gradients_reach_the_neck_alone():
    step = steps.step(2)
    sum(PGDNeck(steps.context(), topk=TOPK)(step).values()).backward()
    assert all(bool(features.grad.any()) for features in step.student.neck)
    assert all(features.grad is None for features in (*step.student.cls_tower, *step.student.reg_tower))
    assert step.student.neck is not step.student.cls_tower, "the step is as it was"


def test_widths_are_the_necks():
    """An adapter leads from the student's neck to the teacher's, however wide the towers are."""
    wide = steps.context(student_channels=6, student_tower_channels=3, teacher_tower_channels=5)
    with pytest.raises(MethodError, match="the student has 6 channels and the teacher 8"):
        PGDNeck(wide)
    step = steps.step(2, ctx=wide)
    found = PGDNeck(wide, adapter=True, topk=TOPK)(step)
    assert all(bool(value.isfinite()) for value in found.values())
