"""MasKD: distillation behind masks that were learned on the teacher (Huang et al., ICLR 2023, arXiv 2205.14589;
released ``maskd.py`` of its mmrazor, and for the first stage ``maskd.py`` and ``maskd_hook.py`` of its mmdetection).

Place: FPN outputs, all levels. Each level has M tokens P_t [C] and a small network p, W_3 a 3x3 and W_1 a 1x1
convolution. What they make of features F is M masks and their shares:

    M_t(F) = sigmoid(P_t . F)  [H W],      p(F) = softmax_t( W_1 mean_p (W_3 F) )  [M]

First stage, on the teacher alone, all of which is frozen: its head gets F' in place of F, and the masks learn by

    F' = sum_t p_t(F) M_t(F) F,      L = L_detector(F') + sum_l mean_{n, t != u} 2 M_t . M_u / (|M_t|^2 + |M_u|^2)

Then they are frozen in turn and the student learns. M_t is M_t(F^T), and from iteration ``warmup`` on
M_t(F^T) M_t(phi(F^S)), which takes no gradient; b is what the heads put out for boxes:

    L = weight sum_l ( mean_n sum_t p_t(F^T) mean_c [ sum_p (M_t (phi(F^S) - F^T))^2 / sum_p M_t ]
                       + boxes mean |b^S - b^T| )

Adapters: phi, a 1x1 convolution a level, also where widths agree. Shapes: ``F [N, C, H, W]`` a level. Needs no ground
truth; the heads' outputs where ``boxes`` is not 0. The file of the first stage goes into ``tokens``: in an experiment
the stage `match` learns it once for all students of a teacher, and it is filled in (benchmark/training/masks.py).
Without one tokens are as drawn, and a warning says so: that is a masked FitNet, not MasKD.

Settings at full scale: first stage M 6, 2000 iterations, Adam of rate 0.01 and weight decay 0.001, cosine to 1e-6. FCOS
weight 10, warmup 5000, no boxes; RetinaNet with an R101 weight 7, warmup 7000, boxes of weight 1. Not published on
others, which take FCOS's. A weighted mean: it does not depend on the size of the detector; iterations go with the
learning rate's warm-up.

Deviations: the first stage sees the config's batch in one process (the release two images on each of eight GPUs) and
lasts no longer than the teacher's own training. A mask without area counts nothing (the release divides by 0).
RetinaNet with an X101 compares boxes by smooth L1 and has warmup 8500: left out. RetinaNet inherits neck and head
there, FCOS does not: a setting of the run. Kept from the release though questionable: masks are squared above the line
and not below it.
"""

from __future__ import annotations

import hashlib
import logging
import math
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from pgd.checkpoint import load_strict
from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, aligners

TOKENS, TOKEN_STD, TINY = 6, 0.01, 1e-12


class Masks(nn.Module):
    """The masks of one level and their shares, as they are before they are learned."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(TOKEN_STD * torch.randn(TOKENS, channels))
        self.shares = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, TOKENS, 1)
        )
        for conv in (self.shares[0], self.shares[2]):
            nn.init.normal_(conv.weight, std=math.sqrt(2 / (conv.kernel_size[0] ** 2 * conv.out_channels)))
            nn.init.zeros_(conv.bias)

    def of(self, features: Tensor) -> Tensor:
        """M_t for features ``[N, C, H, W]``: ``[N, M, P]``, float32."""
        return (self.tokens @ features.flatten(2)).float().sigmoid()

    def weights(self, features: Tensor) -> Tensor:
        """p for features ``[N, C, H, W]``: ``[N, M]``, float32."""
        return self.shares(features).flatten(1).float().softmax(dim=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """F' for features ``[N, C, H, W]``, of the same shape, and how much the masks overlap, a scalar."""
        masks = self.of(features)
        seen = (self.weights(features).unsqueeze(2) * masks).sum(dim=1)
        return features * seen.view(-1, 1, *features.shape[-2:]), overlap(masks)


def overlap(masks: Tensor) -> Tensor:
    """Mean Dice coefficient of two masks ``[N, M, P]`` of an image, a scalar: 0 where none meet, 1 for equal ones."""
    together = masks @ masks.mT
    own = together.diagonal(dim1=1, dim2=2)
    dice = 2 * together / (own.unsqueeze(1) + own.unsqueeze(2) + 2 * TINY)
    images, count = own.shape
    return (dice.sum() - dice.diagonal(dim1=1, dim2=2).sum()) / (images * count * (count - 1))


def masked_distance(student: Tensor, teacher: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """What ``weight`` weighs of one level: features ``[N, C, H, W]``, masks ``[N, M, P]``, p ``[N, M]``; a scalar."""
    squares = (student.float() - teacher.float()).square().mean(dim=1).flatten(1)
    energy = (masks.square() * squares.unsqueeze(1)).sum(dim=2)
    return (weights * energy / masks.sum(dim=2).clamp(min=TINY)).sum(dim=1).mean()


def frozen(module: nn.Module) -> nn.Module:
    """The same module with buffers for parameters: saved with the method, trained by nobody."""
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, value.detach())
    return module


@METHODS.register_module(name="maskd")
class MasKD(Method):
    """Imitation of neck features behind masks that were learned on the teacher.

    Args:
        context: the pair.
        weight: of everything.
        warmup: iterations until the student's masks count as well.
        boxes: of the distance of raw boxes, as a multiple of ``weight``.
        tokens: file of the first stage, for this very teacher; None: random masks.

    Raises:
        CheckpointError: the file is missing, or is of a teacher of another width or with other levels.
    """

    title, place = "MasKD", "neck"
    needs = frozenset({"neck", "predictions"})
    published = {"retinanet": {"weight": 7.0, "warmup": 7000, "boxes": 1 / 7}}
    scaling = {"warmup": {"warmup": 1}}

    def __init__(
        self,
        context: MethodContext,
        weight: float = 10.0,
        warmup: int = 5000,
        boxes: float = 0.0,
        tokens: str | None = None,
    ) -> None:
        super().__init__(context)
        if warmup < 0:
            raise MethodError(f"maskd: warmup {warmup} is a number of iterations: give 0 or more")
        self.weight, self.warmup, self.boxes = weight, warmup, boxes
        if not boxes:
            self.needs = self.needs - {"predictions"}
        self.adapters = aligners(context, always=True)
        masks = nn.ModuleList(Masks(context.teacher_channels) for _ in self.adapters)
        if tokens is None:
            print_log("maskd: random masks; give `tokens`, learned on this teacher", "current", logging.WARNING)
        else:
            load_strict(masks, tokens, "masks of this teacher")
        # which masks they were, wherever their file lay
        digest = tokens and hashlib.sha256(Path(tokens).read_bytes()).hexdigest()[:16]
        self.resolved = {"tokens": digest or "random"}
        self.masks = frozen(masks)
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long))

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        levels = zip(self.adapters, self.masks, step.student.neck, step.teacher.neck, strict=True)
        total = 0.0
        for adapt, masks, student, teacher in levels:
            student, teacher = adapt(student), teacher.detach()
            own = torch.where(self.iteration >= self.warmup, masks.of(student.detach()), 1.0)
            total = total + masked_distance(student, teacher, masks.of(teacher) * own, masks.weights(teacher))
        if self.training:
            self.iteration += 1
        terms = {"loss_maskd": self.weight * total}
        if self.boxes:
            maps = zip(step.student.outputs[1], step.teacher.outputs[1], strict=True)
            distance = sum((own.float() - theirs.float()).abs().mean() for own, theirs in maps)
            terms["loss_maskd_boxes"] = self.weight * self.boxes * distance
        return terms
