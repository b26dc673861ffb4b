"""CanKD: cross-attention non-local distillation (Sun and Ohyama, WACV 2026, arXiv 2511.21503; released
``nlkd_IN_loss.py`` of its mmrazor).

Place: FPN outputs, the four finest levels (P7 of a one-stage detector is left out). The student's features are helped
by what a non-local block finds for them in the teacher's, then both are compared up to scale and shift of each channel:

    z_p = F^S_p + BN( W 1/K sum_k (theta(F^S)_p . phi(F^T)_k) g(F^T)_k )           k over K pooled positions, no softmax
    L = weight sum_l 1/2 mean_{n,c,p} (IN(z) - IN(F^T))^2

theta, phi, g and W are 1x1 convolutions with C/2 inner channels, trained with the student; a max pooling by 2 behind
phi and g leaves the K keys. BN starts at zero, so that z starts as the student's features. IN takes mean and deviation
(ridge 1e-5 on the variance, nothing learned) of each channel of each image, BN of each channel over all images on one
GPU: two processes with half a batch each go by two statistics, and the rest is a mean over images.

Adapters: the block of each level, and before it a 1x1 convolution where the widths differ. Shapes: ``F [N, C, H, W]`` a
level. Needs no ground truth.

Settings at full scale: weight 10 in all configurations (RetinaNet, FCOS, RepPoints, Faster R-CNN; its README counts the
1/2 in and says 5). A mean of what has no scale: it does not depend on the size of the detector.

Deviations: the release takes features of equal width only. The sum over keys comes first, which is the same value
without a matrix of positions by keys. W has no bias, which BN would undo. Pooling is at most over the whole map, and a
batch norm that sees a single value takes its running statistics (small images). Kept from the release though
questionable: z sees the teacher, so the loss can fall without a better student; the bias of BN has no effect, as IN
removes it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, aligners
from pgd.methods.fkd import NonLocal
from pgd.methods.levels import finest

#: of the inner channels, and of the keys in rows and columns
REDUCTION, POOLING = 2, 2


class CrossNonLocal(NonLocal):
    """z of the module docstring from two features ``[N, C, H, W]``: positions of the first look at the second."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, REDUCTION, POOLING)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        kernel = [min(self.pooling, side) for side in teacher.shape[-2:]]
        keys, values = (F.max_pool2d(conv(teacher), kernel).flatten(2) for conv in (self.phi, self.g))
        mixing = values @ keys.mT / keys.size(2)
        mixed = (mixing @ self.theta(student).flatten(2)).unflatten(2, student.shape[-2:])
        return student + self._normalised(self.out(mixed))


def instance_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """L of one level, without its weight: features ``[N, C, H, W]`` to a scalar."""
    # torch's instance norm refuses a map of one position
    student, teacher = (F.layer_norm(features.float(), features.shape[-2:]) for features in (student, teacher))
    return F.mse_loss(student, teacher) / 2


@METHODS.register_module(name="cankd")
class CanKD(Method):
    """Imitation of neck features behind a look at the teacher's, on the ``levels`` finest levels (None: all)."""

    title, place = "CanKD", "neck"
    needs = frozenset({"neck"})

    def __init__(self, context: MethodContext, weight: float = 10.0, levels: int | None = 4) -> None:
        super().__init__(context)
        self.weight = weight
        self.adapters = aligners(context)[: finest(context, levels, "cankd")]
        self.blocks = nn.ModuleList(CrossNonLocal(context.teacher_channels) for _ in self.adapters)

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        levels = zip(self.adapters, self.blocks, step.student.neck, step.teacher.neck, strict=False)
        total = sum(instance_distance(block(adapt(s), t), t) for adapt, block, s, t in levels)
        return {"loss_cankd": self.weight * total}
