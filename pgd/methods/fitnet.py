"""FitNet: plain imitation of every feature (Romero et al., 2015).

    L = weight * sum_l mean_{n,c,p} (phi_l(F^S_l) - F^T_l)^2

Place: FPN outputs, all levels; or, with ``place="towers"``, the first block of both towers, where PGD distils: what is
left between the two is then PGD's masks. Adapters phi: a 1x1 convolution a level where the widths differ or
``adapter=True`` (there is no official detection release; MasKD's "mimic" and HEAD's config have the convolution, LD's
has none). Shapes: ``F [N, C, H, W]`` a level. Needs no ground truth.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pgd.dense import DistillStep, View
from pgd.methods.base import METHODS, Method, MethodContext, MethodError


@METHODS.register_module(name="fitnet")
class FitNet(Method):
    """Mean squared distance of features; ``place`` neck or towers. ``weight`` 1.0 in HEAD and MasKD, 2.0 in LD."""

    title, place = "FitNet", "neck"
    needs = frozenset({"neck"})

    def __init__(self, context: MethodContext, weight: float = 1.0, adapter: bool = False, place: str = "neck") -> None:
        super().__init__(context)
        if place not in ("neck", "towers"):
            raise MethodError(f"fitnet: place '{place}' is not one of neck, towers")
        self.weight, self.place, self.needs = weight, place, frozenset({place})
        widths, maps = (context.student_channels, context.teacher_channels), context.num_levels
        if place == "towers":
            widths, maps = (context.student_tower_channels, context.teacher_tower_channels), 2 * context.num_levels
        needed = adapter or widths[0] != widths[1]
        self.adapters = nn.ModuleList(nn.Conv2d(*widths, 1) if needed else nn.Identity() for _ in range(maps))

    def _features(self, view: View) -> list[Tensor]:
        return list(view.neck) if self.place == "neck" else [*view.cls_tower, *view.reg_tower]

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        maps = zip(self.adapters, self._features(step.student), self._features(step.teacher), strict=True)
        return {"loss_fitnet": self.weight * sum(F.mse_loss(adapt(s), t) for adapt, s, t in maps)}
