"""Channel-wise distillation (Shu et al., ICCV 2021, arXiv 2011.13256; released ``cwd.py`` of mmrazor and of
mmdetection-distiller).

Place: the class logits as maps, or the FPN outputs (``place="neck"``). Each channel of a map is a distribution over
its positions; with q, p the softmax over the positions of the teacher's and the student's channel at temperature tau,

    L = weight sum_l tau^2 / (N C) sum_{n,c} sum_p q (log q - log p)

Class logits of A predictions a position make A times the number of classes channels. Adapters: in the neck a 1x1
convolution a level where the widths differ. Shapes: maps ``[N, C, H, W]`` a level. Needs no ground truth.

Settings at full scale, tau 1 in all: GFL class logits, weight 5, all levels (mmrazor 0.x, its published model);
RetinaNet neck, weight 5, the four finest levels (mmdetection-distiller) or weight 10, all levels (mmrazor 1.x).
Elsewhere GFL's settings are taken, there is no released configuration. The divergence is of distributions and averages
over channels, so the weight does not depend on the size of the detector.

Deviations: C is the number of channels that are compared; mmdetection-distiller divides by that of the student before
its adapter. It also leaves out q log q, which has the same gradient and a larger value: ``cross_entropy=True``. As
released, positions in the padding count.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pgd.dense import DistillStep, Grid, View
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, aligners
from pgd.methods.levels import class_maps, finest


def channelwise_divergence(student: Tensor, teacher: Tensor, tau: float, cross_entropy: bool = False) -> Tensor:
    """L of one level, without its weight.

    Args:
        student: ``[N, C, H, W]``.
        teacher: the same.
        tau: temperature.
        cross_entropy: leave out the teacher's entropy.

    Returns:
        A scalar.
    """
    log_p = F.log_softmax(student.float().flatten(2) / tau, dim=2)
    log_q = F.log_softmax(teacher.float().flatten(2) / tau, dim=2)
    gap = -log_p if cross_entropy else log_q - log_p
    return tau**2 * (log_q.exp() * gap).sum(dim=2).mean()


@METHODS.register_module(name="cwd")
class CWD(Method):
    """Divergence of channels; ``place`` classes or neck, ``levels`` how many of the finest levels (None: all)."""

    title, place = "CWD", "predictions"
    needs = frozenset({"predictions"})
    published = {"retinanet": {"place": "neck", "levels": 4}}

    def __init__(
        self,
        context: MethodContext,
        weight: float = 5.0,
        place: str = "classes",
        tau: float = 1.0,
        levels: int | None = None,
        cross_entropy: bool = False,
    ) -> None:
        super().__init__(context)
        if place not in ("neck", "classes"):
            raise MethodError(f"cwd: place '{place}' is not one of neck, classes")
        if tau <= 0:
            raise MethodError(f"cwd: tau {tau} is a temperature and must be above 0")
        self.weight, self.tau, self.cross_entropy = weight, tau, cross_entropy
        self.levels = finest(context, levels, "cwd")
        self.adapters = None
        if place == "neck":
            self.place, self.needs = "neck", frozenset({"neck"})
            self.adapters = aligners(context)[: self.levels]

    def _maps(self, view: View, grid: Grid) -> list[Tensor]:
        maps = view.neck if self.adapters is not None else class_maps(view.class_logits, grid)
        return list(maps[: self.levels])

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        student, teacher = (self._maps(view, step.grid) for view in (step.student, step.teacher))
        if self.adapters is not None:
            student = [adapt(features) for adapt, features in zip(self.adapters, student, strict=True)]
        levels = zip(student, teacher, strict=True)
        total = sum(channelwise_divergence(s, t, self.tau, self.cross_entropy) for s, t in levels)
        return {"loss_cwd": self.weight * total}
