"""PGD's loss on the neck instead of the towers (after Yang et al., ECCV 2022, arXiv 2203.05469).

Place: FPN outputs, all levels. F^S and F^T of both terms of :mod:`pgd.methods.pgd` are the neck's features; masks,
attention and weights stay as they are:

    L = L_cls(neck; W_cls, B) + L_reg(neck; W_reg)

Adapters, shapes and needs are PGD's with the neck for the towers: what is left between the two is where they compare.
Settings at full scale: PGD's; none has been published for this place, whose features no activation has cut off at zero.
The means of L_reg are over the key positions of all images on one GPU, as in PGD.
Deviations: those of PGD.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import Tensor

from pgd.dense import DistillStep, View
from pgd.methods.base import METHODS, MethodContext
from pgd.methods.pgd import PGD


def _at_neck(view: View) -> View:
    """The same view, whose towers are the neck."""
    moved = copy.copy(view)
    moved.cls_tower = moved.reg_tower = view.neck
    return moved


@METHODS.register_module(name="pgd_neck")
class PGDNeck(PGD):
    """PGD on neck features; settings as for :class:`pgd.methods.pgd.PGD`.

    Args:
        context: the pair.
        settings: those of :class:`pgd.methods.pgd.PGD`.
    """

    title, place = "PGD (neck)", "neck"
    needs = frozenset({"neck", "predictions", "ground_truth"})

    def __init__(self, context: MethodContext, **settings: Any) -> None:
        student, teacher = context.student_channels, context.teacher_channels
        moved = replace(context, student_tower_channels=student, teacher_tower_channels=teacher)
        super().__init__(moved, **settings)

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        terms = super().forward(replace(step, student=_at_neck(step.student), teacher=_at_neck(step.teacher)))
        return {name.replace("loss_pgd", "loss_pgd_neck"): value for name, value in terms.items()}
