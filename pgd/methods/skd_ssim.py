"""SKD-SSIM: structural similarity of neck features (de Rijk et al., NeurIPS 2022, arXiv 2211.13133; after two notes of
the paper, which name kornia's ``ssim_loss``).

Place: FPN outputs, all levels. Both maps are brought to [0, 1] by their smallest and largest value; then, channel by
channel, with means m, variances v and covariance c of a Gaussian window (11 x 11 cells, deviation 1.5) around a cell,

    SSIM = (2 m_S m_T + C1)(2 c_ST + C2) / ((m_S^2 + m_T^2 + C1)(v_S + v_T + C2)),   C1 = 0.01^2, C2 = 0.03^2
    L    = weight sum_l mean_{n,c,p} (1 - SSIM) / 2

which is the product of luminance, contrast and structure with C3 = C2 / 2. Windows reach over the border by reflection
about the outermost cell, as kornia's.

Adapters: a 1x1 convolution a level where the widths differ. Shapes: ``F [N, C, H, W]`` a level. Needs no ground truth.

Settings at full scale: weight 2 or 4, by the notes the best for RetinaNet and Faster R-CNN and within 0.5 AP of others.
A mean of what has no scale: the weight does not depend on the size of the detector, the window's deviation is a length
in cells.

Not in the notes: over what the smallest and the largest value are taken. Here over all of an image's level, which is
how they write the features, C x H x W; ``scope: channel`` takes each channel alone, ``scope: batch`` all images. Nor
whether the gradient passes through these two: here it does.

Deviations: kornia refuses maps that are smaller than half a window; here the reflection goes on. A map of one value,
which has no range, is zero. Adapters only where the widths differ; by the notes one is worth 1.1 AP (Faster R-CNN).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, aligners

#: of the window: cells to each side at a deviation of 1.5, in deviations
REACH = 5 / 1.5
C1, C2, TINY = 0.01**2, 0.03**2, 1e-12
#: dimensions of ``[N, C, H, W]`` over which a range is taken
SCOPES = {"image": (1, 2, 3), "channel": (2, 3), "batch": (0, 1, 2, 3)}


def in_range(features: Tensor, scope: str) -> Tensor:
    """To [0, 1] by the smallest and the largest value: ``[N, C, H, W]`` to the same, float32."""
    features, over = features.float(), SCOPES[scope]
    low, high = features.amin(dim=over, keepdim=True), features.amax(dim=over, keepdim=True)
    return (features - low) / (high - low).clamp(min=TINY)


def window_means(length: int, deviation: float, like: Tensor) -> Tensor:
    """Weights by which each of ``length`` cells takes the mean around it, ``[length, length]``; rows add up to 1."""
    reach = round(REACH * deviation)
    steps = torch.arange(-reach, reach + 1, device=like.device)
    gauss = F.softmax(-(steps.to(like.dtype) ** 2) / (2 * deviation**2), dim=0)
    # reflection about the outermost cells repeats after a walk there and back
    around = max(2 * (length - 1), 1)
    walked = (torch.arange(length, device=like.device)[:, None] + steps) % around
    cells = torch.minimum(walked, around - walked) if length > 1 else torch.zeros_like(walked)
    return like.new_zeros(length, length).scatter_add_(1, cells, gauss.expand(length, -1))


def similarity(student: Tensor, teacher: Tensor, deviation: float) -> Tensor:
    """SSIM of every cell: ``[N, C, H, W]`` in [0, 1] each, float32, to the same."""
    down, along = (window_means(length, deviation, student) for length in student.shape[-2:])

    def mean(values: Tensor) -> Tensor:
        return down @ values @ along.mT

    # autocast would take the products in half precision, and variances are differences
    with torch.autocast(student.device.type, enabled=False):
        m_s, m_t = mean(student), mean(teacher)
        variances = mean(student.square() + teacher.square()) - m_s.square() - m_t.square()
        covariance = mean(student * teacher) - m_s * m_t
    likeness = (2 * m_s * m_t + C1) * (2 * covariance + C2)
    return likeness / ((m_s.square() + m_t.square() + C1) * (variances + C2))


@METHODS.register_module(name="skd_ssim")
class SKDSSIM(Method):
    """Structural similarity of neck features.

    Args:
        context: the pair.
        weight: of the loss.
        deviation: of the window, in cells; the window reaches 10/3 of it to each side.
        scope: what is brought to [0, 1] together: image, channel or batch.
    """

    title, place = "SKD-SSIM", "neck"
    needs = frozenset({"neck"})
    scaling = {"deviation": {"cells": 1}}

    def __init__(
        self, context: MethodContext, weight: float = 4.0, deviation: float = 1.5, scope: str = "image"
    ) -> None:
        super().__init__(context)
        if scope not in SCOPES:
            raise MethodError(f"skd_ssim: scope '{scope}' is not one of {', '.join(SCOPES)}")
        if deviation <= 0:
            raise MethodError(f"skd_ssim: deviation {deviation} is a length in cells and must be positive")
        self.weight, self.deviation, self.scope = weight, deviation, scope
        self.adapters = aligners(context)

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        total = 0.0
        for adapt, student, teacher in zip(self.adapters, step.student.neck, step.teacher.neck, strict=True):
            both = (in_range(features, self.scope) for features in (adapt(student), teacher))
            total = total + ((1 - similarity(*both, self.deviation)) / 2).mean()
        return {"loss_skd_ssim": self.weight * total}
