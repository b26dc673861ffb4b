"""BCKD: bridging cross-task protocol inconsistency (Yang et al., ICCV 2023, arXiv 2308.14286; released ``ld_head.py``).

Place: class logits z and decoded boxes, all positions. Each class is a task of its own, by sigmoid as in the detector's
loss instead of a softmax over classes:

    L_cls = w_cls / n sum_{i,k} m_i |y_ik - sigma(z^S_ik)| BCE(z^S_ik, y_ik),   y = sigma(z^T) without gradient
    L_box = w_box / n sum_i m_i max_k |y_ik - sigma(z^S_ik)| (1 - GIoU(box^S_i, box^T_i))
    L = weight (L_cls + L_box)

m_i is the label weight of prediction i (0 in the padding and where the assigner ignores it), n the number of positives
of the student's assigner, mean over processes, at least 1. The factor of L_cls takes gradient, that of L_box does not.
A level of the batch on one GPU without a positive is left out, as released; ``all_levels`` takes it in. Two processes
with half a batch each have n in common and add up to the whole, but for a level on which one of them has no positive.

Shapes: class logits ``[N, P A, C]``, boxes ``[N, P A, 4]`` xyxy pixels (GIoU does not depend on the unit). Needs both
predictions and the assignment. No adapters.

Settings at full scale: w_cls 1, w_box 4 (GFL, the only detector published; others take the same). L_cls is a sum over
classes and positions over a number of positions: nothing goes with the size.

Deviations: n is at least 1, where the release counts an image without a positive as one. The terms of LD that the
release keeps with a weight of zero are left out. AutoAssign has no positives and is refused.
"""

from __future__ import annotations

from torch import Tensor

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext
from pgd.methods.crosskd import class_divergence, giou_loss, mean_count
from pgd.methods.levels import levels_with_positives


def class_gap(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Largest difference of a prediction's class scores, without gradient: ``[..., C]`` to ``[...]``."""
    student, teacher = (z.detach().float().sigmoid() for z in (logits, teacher_logits))
    return (teacher - student).abs().amax(dim=-1)


@METHODS.register_module(name="bckd")
class BCKD(Method):
    """Distils class scores one by one, and boxes by overlap.

    Args:
        context: the pair.
        weight: of everything.
        weight_cls, weight_box: of the terms; 0 leaves a term out.
        all_levels: levels without a positive count too.
    """

    title, place = "BCKD", "predictions"
    needs = frozenset({"predictions", "assignment"})

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        weight_cls: float = 1.0,
        weight_box: float = 4.0,
        all_levels: bool = False,
    ) -> None:
        super().__init__(context)
        self.weight_cls, self.weight_box, self.all_levels = weight * weight_cls, weight * weight_box, all_levels

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        student, teacher, positive = step.student, step.teacher, self.positives(step)
        weights = step.label_weights / mean_count(positive)
        if not self.all_levels:
            weights = weights * levels_with_positives(positive, step.grid)
        terms = {}
        if self.weight_cls:
            divergence = class_divergence(student.class_logits, teacher.class_logits)
            terms["loss_bckd_cls"] = self.weight_cls * (weights * divergence).sum()
        if self.weight_box:
            gap = class_gap(student.class_logits, teacher.class_logits)
            distance = giou_loss(student.boxes, teacher.boxes)
            terms["loss_bckd_box"] = self.weight_box * (weights * gap * distance).sum()
        return terms
