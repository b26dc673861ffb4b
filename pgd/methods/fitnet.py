"""FitNet on the neck: plain imitation of every FPN feature (Romero et al., 2015).

    L = weight * sum_l mean_{n,c,p} (phi_l(F^S_l) - F^T_l)^2

Place: FPN outputs, all levels. Adapters phi: a 1x1 convolution a level where the widths differ or ``adapter=True``
(there is no official detection release; MasKD's "mimic" and HEAD's config have the convolution, LD's has none).
Shapes: ``F [N, C, H, W]`` a level. Needs no ground truth.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext


@METHODS.register_module(name="fitnet")
class FitNet(Method):
    """Mean squared distance of neck features. ``weight`` 1.0 in HEAD and MasKD, 2.0 in LD's variant."""

    needs = frozenset({"neck"})

    def __init__(self, context: MethodContext, weight: float = 1.0, adapter: bool = False) -> None:
        super().__init__(context)
        self.weight = weight
        if adapter or context.student_channels != context.teacher_channels:
            self.adapters = nn.ModuleList(
                nn.Conv2d(context.student_channels, context.teacher_channels, 1) for _ in range(context.num_levels)
            )
        else:
            self.adapters = nn.ModuleList(nn.Identity() for _ in range(context.num_levels))

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, strict=True)
        return {"loss_fitnet": self.weight * sum(F.mse_loss(adapt(s), t) for adapt, s, t in levels)}
