"""TinyKD: imitation of neck features and of their local relations, small objects first (Liu et al., ICIP 2023; released
``tiny_kd_loss.py``).

Place: FPN outputs, all levels. An object weighs by one over its area, so that small ones are not lost:

    a_g     = H_in W_in / area(g), pixels from the floor of g's near to the ceiling of its far corner, both included
    M_fg(p) = max of a_g over boxes g that meet cell p, else 0; divided by its sum in the image
    M_bg(p) = 1[M_fg(p) = 0] / #{p: M_fg(p) = 0}
    D(X, Y) = 1/(N C) sum_{n,c,p} (alpha_fg M_fg + alpha_bg M_bg) (X - Y)^2
    R(F)_p  = F_p + O sum_{k in patch of p} softmax_k( q(F)_p . k(F)_k / tau ) v(F)_k
    L = weight min(1, i / warmup) sum_l w_feature D(phi(F^S), F^T) + w_relation D(psi(R_S(F^S)), R_T(F^T))

A cell meets the pixels from the floor of its near to the ceiling of its far edge; H_in x W_in is the batch with its
padding. Patches are of 16x16 cells, from the near corner of the map; those at its far edges hold what is left. i counts
iterations from 1.

Adapters of a level: phi and psi, 3x3 convolutions, also where widths agree; q, k, v and O, 1x1 convolutions without a
change of width, for the student and for the teacher. q, k, v start from a normal distribution of deviation 0.01, O at
zero, so that R starts as the identity. R_T is trained too, as released. Shapes: ``F [N, C, H, W]`` a level, masks
``[N, H, W]``, boxes ``[G, 4]`` xyxy pixels. Needs the ground truth.

Settings at full scale: TinyPerson w_feature = w_relation = 1, AI-TOD 0.5; alpha_fg 1, alpha_bg 0.5, tau 0.05, warmup
1000 for all detectors (FCOS, RetinaNet and two-stage ones, levels of strides 4 to 64). It has not been published on
COCO. D is a mean over channels and over positions: it does not depend on the size of the detector.

Deviations: an image without objects, which the release cannot take, is all background. k has no bias, which a softmax
does not see. The release resizes the student's map where sizes differ; here a pair has levels of equal strides. It
also divides a by the number of objects, which cancels out. A weight of zero leaves its term out. Its student starts
with the teacher's head but not with its neck; here with both or none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, aligners
from pgd.methods.fgd import background_mask

#: side of a patch, in cells
PATCH = 16
#: standard deviation of the first weights of q, k and v
START = 0.01


def _meets(near: Tensor, far: Tensor, cells: int, pixels: int) -> Tensor:
    """Pixels from ``near`` to ``far`` (``[G]``, both included) of one axis to the cells they meet: ``[G, cells]``."""
    index = torch.arange(cells, device=near.device)
    first, last = index * pixels // cells, -((index + 1) * pixels // -cells) - 1
    # what lies beyond the border meets nothing
    return (near[:, None] <= last) & (far[:, None] >= first)


@torch.no_grad()
def object_mask(gt_boxes: Tensor, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """M_fg of one image.

    Args:
        gt_boxes: ``[G, 4]`` xyxy pixels; G may be 0.
        canvas: (height, width) of the batch in pixels.
        size: (H, W) of the level.

    Returns:
        ``[H, W]``; its sum is 1, or 0 without an object.
    """
    if gt_boxes.size(0) == 0:
        return gt_boxes.new_zeros(size)
    (left, top), (right, bottom) = gt_boxes[:, :2].floor().unbind(dim=1), gt_boxes[:, 2:].ceil().unbind(dim=1)
    share = canvas[0] * canvas[1] / ((bottom + 1 - top) * (right + 1 - left))
    rows, columns = _meets(top, bottom, size[0], canvas[0]), _meets(left, right, size[1], canvas[1])
    covered = rows[:, :, None] & columns[:, None, :]
    mask = (covered * share[:, None, None]).amax(dim=0)
    return mask / mask.sum().clamp(min=torch.finfo(mask.dtype).tiny)


def to_patches(features: Tensor) -> Tensor:
    """``[N, C, H, W]``, filled up with zeros, to ``[N, rows, columns, PATCH^2, C]``."""
    height, width = features.shape[-2:]
    filled = F.pad(features, (0, -width % PATCH, 0, -height % PATCH))
    cells = filled.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)


def from_patches(patches: Tensor, height: int, width: int) -> Tensor:
    """The reverse of :func:`to_patches`, without what was filled up."""
    cells = patches.unflatten(3, (PATCH, PATCH)).permute(0, 5, 1, 3, 2, 4)
    return cells.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


class PatchAttention(nn.Module):
    """R of the module docstring: ``[N, C, H, W]`` to the same."""

    def __init__(self, channels: int, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.query, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        for conv in (self.query, self.key, self.value):
            nn.init.normal_(conv.weight, std=START)
        nn.init.zeros_(self.out.weight)
        for conv in (self.query, self.value, self.out):
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        query, key, value = (to_patches(conv(x)) for conv in (self.query, self.key, self.value))
        inside = to_patches(x.new_ones(1, 1, *size)).mT.bool()
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=inside, scale=1 / self.tau)
        return x + self.out(from_patches(mixed, *size))


class TinyKDLevel(nn.Module):
    """What is trained for the relations of one level."""

    def __init__(self, student_channels: int, teacher_channels: int, tau: float) -> None:
        super().__init__()
        self.student = PatchAttention(student_channels, tau)
        self.teacher = PatchAttention(teacher_channels, tau)
        self.adapter = nn.Conv2d(student_channels, teacher_channels, 3, padding=1)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """psi(R_S) and R_T."""
        return self.adapter(self.student(student)), self.teacher(teacher)


def masked_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """``1/(N C) sum mask (student - teacher)^2`` of features ``[N, C, H, W]`` with a mask ``[N, H, W]``."""
    return (mask * ((student.float() - teacher.float()) ** 2).mean(dim=1)).sum() / student.size(0)


@METHODS.register_module(name="tinykd")
class TinyKD(Method):
    """Imitation of features and of local relations, with masks in which small objects count.

    Args:
        context: the pair.
        weight: of everything.
        weight_feature, weight_relation: of the terms; 0 leaves a term out.
        alpha_fg, alpha_bg: of objects and of background in both.
        tau: temperature of the attention.
        warmup: iterations until the terms have their full weight; 0 for none.
    """

    title, place = "TinyKD", "neck"
    needs = frozenset({"neck", "ground_truth"})
    scaling = {"warmup": {"warmup": 1}}

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        weight_feature: float = 1.0,
        weight_relation: float = 1.0,
        alpha_fg: float = 1.0,
        alpha_bg: float = 0.5,
        tau: float = 0.05,
        warmup: int = 1000,
    ) -> None:
        super().__init__(context)
        if tau <= 0:
            raise MethodError(f"tinykd: tau {tau} is a temperature and must be above 0")
        if warmup < 0:
            raise MethodError(f"tinykd: warmup {warmup} is a number of iterations: give 0 or more")
        self.alpha_fg, self.alpha_bg, self.warmup = alpha_fg, alpha_bg, warmup
        self.weight_feature, self.weight_relation = weight * weight_feature, weight * weight_relation
        widths = context.student_channels, context.teacher_channels
        levels = range(context.num_levels)
        self.adapters = aligners(context, kernel=3, always=True) if weight_feature else nn.ModuleList()
        self.relations = nn.ModuleList(TinyKDLevel(*widths, tau) for _ in levels if weight_relation)
        #: iterations of training that have begun
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long))

    def _ramp(self) -> Tensor:
        """Share of the weights in this iteration, which it counts."""
        if self.training:
            self.iteration += 1
        return (self.iteration / self.warmup).clamp(max=1) if self.warmup else torch.ones_like(self.iteration)

    def masks(self, step: DistillStep) -> list[Tensor]:
        """alpha_fg M_fg + alpha_bg M_bg of every level, ``[N, H, W]``."""
        finest, stride = step.grid.sizes[0], self.context.strides[0]
        canvas = finest[0] * stride, finest[1] * stride
        objects = [torch.stack([object_mask(b, canvas, size) for b in step.gt_boxes]) for size in step.grid.sizes]
        return [self.alpha_fg * mask + self.alpha_bg * background_mask(mask) for mask in objects]

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        student, teacher, masks, ramp = step.student.neck, step.teacher.neck, self.masks(step), self._ramp()
        terms = {}
        if self.weight_feature:
            pairs = [(adapt(s), t) for adapt, s, t in zip(self.adapters, student, teacher, strict=True)]
            total = sum(masked_distance(*pair, mask) for pair, mask in zip(pairs, masks, strict=True))
            terms["loss_tinykd_feature"] = ramp * self.weight_feature * total
        if self.weight_relation:
            pairs = [relate(s, t) for relate, s, t in zip(self.relations, student, teacher, strict=True)]
            total = sum(masked_distance(*pair, mask) for pair, mask in zip(pairs, masks, strict=True))
            terms["loss_tinykd_relation"] = ramp * self.weight_relation * total
        return terms
