"""ACAM-KD: masks over positions and over channels that student and teacher find together (Lan and Tian, ICCV 2025,
arXiv 2503.06307; after three notes of the paper, which agree).

Place: FPN outputs, all levels. Positions of the teacher look at the student's; what they find is F, and from F come M
masks over channels and M over positions:

    F = softmax( (W_q F^T)^T (W_k F^S) / sqrt(C/2) ) W_v F^S,   over all positions of the level
    M^c_m = sigmoid(m^c_m mean_p F)  [C],     M^s_m = sigmoid(m^s_m . F)  [H W],     D = F^T - F^S
    L_c   = mean_m sum_{c,p} (M^c_m D)^2 / (H W sum_c M^c_m)
    L_s   = mean_m sum_{c,p} (M^s_m D)^2 / (C sum_p M^s_m)
    L_div = 2 sum_{i != j} M_i . M_j / (sum_i M_i^2 + sum_j M_j^2),  for the masks of each kind
    L     = weight sum_l [ L_c + L_s + diversity L_div ],  the mean over images

Adapters of each level: W_q, W_k (C to C/2) and W_v (C to C) without bias, numbers m^c [M] and vectors m^s [M, C];
before them a 1x1 convolution where the widths differ. All are trained with the student, and nothing is cut off: the
masks see the loss, and the student sees the masks. Shapes: ``F [N, C, H, W]`` a level. Needs no ground truth.

Settings at full scale: weight 1, diversity 1, M 6, with neck and head inherited, for RetinaNet, RepPoints and Faster
R-CNN. Both distances are weighted means, so they do not depend on the size of the detector.

The notes print the sum over a mask as a factor, not as a divisor: ``mask_sum: multiply``. Then a loss grows with the
cube of its masks and empty masks are the best ones; MasKD, which the paper builds upon, divides. So does the default.

Deviations: where the notes say nothing, this is a guess: the start of m^c and m^s (normal, 0.01, as MasKD's tokens),
of W (PyTorch's), parameters of their own for each level, the mean over images. By the notes the student's map goes
through the 1x1 convolution always, here only where the widths differ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, aligners

TINY, TOKEN_STD = 1e-12, 0.01


class Masks(nn.Module):
    """Masks of one level from features ``[N, C, H, W]``: over channels ``[N, M, C]``, over positions ``[N, M, P]``."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.query, self.key = (nn.Conv2d(channels, inner, 1, bias=False) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.channel_token = nn.Parameter(TOKEN_STD * torch.randn(count, 1))
        self.spatial_token = nn.Parameter(TOKEN_STD * torch.randn(count, channels))

    def found(self, student: Tensor, teacher: Tensor) -> Tensor:
        """What each position of the teacher finds in the student: ``[N, C, P]``, float32."""
        looks = (self.query(teacher), self.key(student), self.value(student))
        # never as a matrix of positions by positions where the device has a kernel for it
        return F.scaled_dot_product_attention(*(m.flatten(2).mT for m in looks)).mT.float()

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        found = self.found(student, teacher)
        over_channels = self.channel_token * found.mean(dim=2).unsqueeze(1)
        return over_channels.sigmoid(), (self.spatial_token @ found).float().sigmoid()


def masked_distance(masks: Tensor, squares: Tensor, others: int, multiply: bool) -> Tensor:
    """L_c or L_s: a scalar.

    Args:
        masks: ``[N, M, K]``, over channels or over positions.
        squares: ``[N, K]``, D^2 summed over the others.
        others: how many those are.
        multiply: whether the sum over a mask is a factor instead of a divisor.
    """
    energy, area = (masks.square() * squares.unsqueeze(1)).sum(dim=2), masks.sum(dim=2)
    return (energy * area / others if multiply else energy / (others * area).clamp(min=TINY)).mean()


def diversity_loss(masks: Tensor) -> Tensor:
    """L_div of masks ``[N, M, K]``: 0 where none overlap, M - 1 where all are the same; a scalar."""
    own = masks.square().sum(dim=(1, 2))
    together = masks.sum(dim=1).square().sum(dim=1)
    return ((together - own) / own.clamp(min=TINY)).mean()


@METHODS.register_module(name="acamkd")
class ACAMKD(Method):
    """Imitation of neck features under masks that both find.

    Args:
        context: the pair.
        weight: of everything.
        diversity: of L_div, as a multiple of it.
        masks: M, of each kind.
        mask_sum: divide or multiply.
    """

    title, place = "ACAM-KD", "neck"
    needs = frozenset({"neck"})

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        diversity: float = 1.0,
        masks: int = 6,
        mask_sum: str = "divide",
    ) -> None:
        super().__init__(context)
        if mask_sum not in ("divide", "multiply"):
            raise MethodError(f"acamkd: mask_sum '{mask_sum}' is not one of divide, multiply")
        if masks < 2:
            raise MethodError(f"acamkd: masks {masks} leaves none to differ from: give 2 or more")
        self.weight, self.diversity, self.multiply = weight, diversity, mask_sum == "multiply"
        self.adapters = aligners(context)
        self.masks = nn.ModuleList(Masks(context.teacher_channels, masks) for _ in self.adapters)

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        by_channel = by_position = diversity = 0.0
        levels = zip(self.adapters, self.masks, step.student.neck, step.teacher.neck, strict=True)
        for adapt, masks, student, teacher in levels:
            student = adapt(student)
            over_channels, over_positions = masks(student, teacher)
            squares = (teacher.float() - student.float()).square().flatten(2)
            channels, positions = squares.shape[1:]
            by_channel = by_channel + masked_distance(over_channels, squares.sum(dim=2), positions, self.multiply)
            by_position = by_position + masked_distance(over_positions, squares.sum(dim=1), channels, self.multiply)
            diversity = diversity + diversity_loss(over_channels) + diversity_loss(over_positions)
        return {
            "loss_acamkd_channel": self.weight * by_channel,
            "loss_acamkd_spatial": self.weight * by_position,
            "loss_acamkd_diversity": self.weight * self.diversity * diversity,
        }
