"""PCKA: patches of neck features are as alike as the teacher's (Zhou et al., IJCAI 2024, arXiv 2401.11824; released
``cka_loss.py`` of its mmrazor).

Place: FPN outputs, the four finest levels (P7 of a one-stage detector is left out). Each channel is cut into squares of
``side`` x ``side`` cells; X_c, ``[patches, N side^2]``, has a patch a row, the images on one GPU side by side (two
processes with half a batch each align their own, and the mean of both is not A of the whole batch). With the uncentred
alignment of two matrices by their Gram matrices,

    A(X, Y) = tr(X X^T Y Y^T) / (||X X^T||_F ||Y Y^T||_F)
    L = weight sum_l mean_c [ 1 - A(X^S_c, X^T_c)  +  1 - A(X^S_c^T, X^T_c^T) ]      the second with ``transposed``

The first compares which patches are alike, the second which cells; the second is also

    ||X^S X^T^T||_F^2 / (||X^S X^S^T||_F ||X^T X^T^T||_F)

so that no matrix of cells by cells is needed. Maps are resized (bilinear, both alike) up to multiples of ``side``.

Adapters: a 1x1 convolution a level where the widths differ. Shapes: ``F [N, C, H, W]`` a level. Needs no ground truth.

Settings at full scale: weight 10, side 16; both terms for GFL (a configuration without a published figure), the first
alone for FCOS and RetinaNet. Other detectors take GFL's. A mean of what has no scale, so the weight does not depend on
the size of the detector; the side is a length in cells.

Deviations: the release has -A, here 1 - A: the same gradient, and zero where nothing is left to learn. Its setting for
the weight of the second term only turns it on; it weighs as the first, as here. A level that is one patch is an error
there; here the first term is then 0, as A is 1 whatever the features. A channel that is zero everywhere is not a number
there; here its A is 0. Features of equal width only there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import matrix_norm
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, aligners
from pgd.methods.levels import finest

TINY = 1e-12


def patch_rows(features: Tensor, side: int) -> Tensor:
    """X of each channel, divided by its norm: ``[N, C, H, W]`` to ``[C, patches, N side^2]``, float32."""
    size = [-(-length // side) * side for length in features.shape[-2:]]
    whole = F.interpolate(features.float(), size, mode="bilinear")
    cells = whole.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    rows = cells.permute(1, 2, 4, 0, 3, 5).flatten(3).flatten(1, 2)
    return rows / matrix_norm(rows, keepdim=True).clamp(min=TINY)


def alignments(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """A of rows and of columns: ``[C, patches, n]`` each to ``[C]`` and ``[C]``."""
    # autocast would take the products in half precision, and 1 - A is a small difference
    with torch.autocast(student.device.type, enabled=False):
        grams, across = (student @ student.mT, teacher @ teacher.mT), student @ teacher.mT
    scale = (matrix_norm(grams[0]) * matrix_norm(grams[1])).clamp(min=TINY)
    return (grams[0] * grams[1]).sum(dim=(1, 2)) / scale, across.square().sum(dim=(1, 2)) / scale


@METHODS.register_module(name="pcka")
class PCKA(Method):
    """Alignment of patches of neck features.

    Args:
        context: the pair.
        weight: of each term.
        side: of a patch, in cells.
        transposed: whether cells are aligned as well.
        levels: how many of the finest; None for all.
    """

    title, place = "PCKA", "neck"
    needs = frozenset({"neck"})
    published = {name: {"transposed": False} for name in ("fcos", "retinanet")}
    scaling = {"side": {"cells": 1}}

    def __init__(
        self,
        context: MethodContext,
        weight: float = 10.0,
        side: int = 16,
        transposed: bool = True,
        levels: int | None = 4,
    ) -> None:
        super().__init__(context)
        if side < 1:
            raise MethodError(f"pcka: side {side} is a number of cells: give 1 or more")
        self.weight, self.side, self.transposed = weight, side, transposed
        self.adapters = aligners(context)[: finest(context, levels, "pcka")]

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, strict=False)
        both = [alignments(patch_rows(adapt(s), self.side), patch_rows(t, self.side)) for adapt, s, t in levels]
        terms = {"loss_pcka_patches": self.weight * sum((1 - rows).mean() for rows, _ in both)}
        if self.transposed:
            terms["loss_pcka_cells"] = self.weight * sum((1 - columns).mean() for _, columns in both)
        return terms
