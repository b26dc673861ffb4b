"""PKD: imitation of features up to scale and shift of each channel (Cao et al., NeurIPS 2022, arXiv 2207.02039;
released ``pkd_loss.py`` of mmrazor).

Place: FPN outputs, the four finest levels (P7 of a one-stage detector is left out). With m_c and s_c the mean and the
unbiased standard deviation of a channel over all images and positions of the batch on one GPU,

    F' = (F - m_c) / (s_c + 1e-6)
    L  = weight sum_l 1/2 mean_{n,c,p} (F'^S - F'^T)^2  =  weight sum_l (1 - mean_c r_c)

r_c being Pearson's correlation of the student's and the teacher's channel (the second form holds up to the ridge and
to one over the number of values). The gradient passes through the student's mean and deviation.

Adapters: a 1x1 convolution a level where the widths differ. Shapes: ``F [N, C, H, W]`` a level. Needs no ground truth.

Settings at full scale: weight 10 for one-stage detectors (RetinaNet, RepPoints and FCOS as teacher of RetinaNet), 6 for
Faster R-CNN. A mean: it does not depend on the size of the detector.

Deviations: the release takes features of equal width only, and resizes the student's map where sizes differ; here a
pair has levels of equal strides. A channel of a single value, which has no deviation, is zero instead of not a number.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, aligners
from pgd.methods.levels import finest

RIDGE = 1e-6


def standardised(features: Tensor) -> Tensor:
    """F' of the module docstring: ``[N, C, H, W]`` to the same, float32."""
    centred = features.float()
    centred = centred - centred.mean(dim=(0, 2, 3), keepdim=True)
    values = centred.numel() // centred.size(1)
    return centred / (centred.std(dim=(0, 2, 3), correction=min(1, values - 1), keepdim=True) + RIDGE)


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L of one level, without its weight: features ``[N, C, H, W]`` to a scalar."""
    return F.mse_loss(standardised(student), standardised(teacher)) / 2


@METHODS.register_module(name="pkd")
class PKD(Method):
    """Correlation of neck features on the ``levels`` finest levels (None: all)."""

    title, place = "PKD", "neck"
    needs = frozenset({"neck"})

    def __init__(self, context: MethodContext, weight: float = 10.0, levels: int | None = 4) -> None:
        super().__init__(context)
        self.weight = weight
        self.adapters = aligners(context)[: finest(context, levels, "pkd")]

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, strict=False)
        return {"loss_pkd": self.weight * sum(correlation_loss(adapt(s), t) for adapt, s, t in levels)}
