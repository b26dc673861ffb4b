"""DIST: correlation of class scores (Huang et al., NeurIPS 2022, arXiv 2205.10536; ``dist_kd.py`` of MasKD's release,
which is its detection part).

Place: the class scores Y = sigma(z) of a level as a table, a row for each position of each image, a column for each
class (for each of the A predictions). With r Pearson's correlation of the student's and the teacher's,

    L_inter = sum_l 1 - mean over rows of r(row)            which classes belong together, at a position
    L_intra = sum_l 1 - mean over columns of r(column)      which positions belong together, for a class
    L = weight (beta L_inter + gamma L_intra)
    r(a, b) = <a', b'> / (|a'| |b'| + 1e-8), a' = a - mean(a)

A column has the positions of all images on one GPU: two processes with half a batch each give the mean of two L_intra,
which is not that of the whole batch; L_inter is.

Shapes: scores ``[N, P A, C]``, a level's table ``[N H W, A C]``. Needs no ground truth. No adapters.

Settings at full scale: weight, beta and gamma 1 (RetinaNet; nothing is released for other dense detectors). Means: they
do not depend on the size of the detector. A table of one column (one class, one prediction a position) has nothing
between classes: give beta 0, or L_inter stays at 1 a level. As released, positions in the padding count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext
from pgd.methods.levels import class_maps

RIDGE = 1e-8


def correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """r of the module docstring along ``dim`` of two tables; 0 where one of them is constant."""
    a, b = a - a.mean(dim=dim, keepdim=True), b - b.mean(dim=dim, keepdim=True)
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim=dim) / (norms + RIDGE)


@METHODS.register_module(name="dist")
class DIST(Method):
    """``beta`` weighs the correlation over classes, ``gamma`` that over positions; 0 leaves a term out."""

    title, place = "DIST", "predictions"
    needs = frozenset({"predictions"})

    def __init__(self, context: MethodContext, weight: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> None:
        super().__init__(context)
        self.weight = weight
        #: for each term its weight, and the axis of the tables that it correlates along
        self.terms = {"loss_dist_inter": (beta, 1), "loss_dist_intra": (gamma, 0)}

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        student, teacher = (
            [m.permute(0, 2, 3, 1).flatten(0, 2) for m in class_maps(view.scores, step.grid)]
            for view in (step.student, step.teacher)
        )
        terms = {}
        for name, (weight, dim) in self.terms.items():
            if weight:
                gaps = [1 - correlation(s, t, dim).mean() for s, t in zip(student, teacher, strict=True)]
                terms[name] = self.weight * weight * sum(gaps)
        return terms
