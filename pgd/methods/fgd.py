"""Focal and Global Distillation (Yang et al., CVPR 2022, arXiv 2111.11837; released ``fgd.py``).

Place: FPN outputs, all levels (the release hooks the raw 3x3 output convolutions of the FPN, which is what an
FPN without normalisation puts out). With P(p) = HW softmax_p(mean_c|F|/T), A(c) = C softmax_c(mean_p|F|/T), D
the difference of the features and F^S already at the teacher's width (by a 1x1 convolution where widths
differ):

    M_fg(p) = max over boxes g that cover p of 1 / area(g), else 0
    M_bg(p) = 1[M_fg(p) = 0] / #{p: M_fg(p) = 0}, for each image and level
    L_fg  = 1/N sum_{n,c,p} M_fg P^T A^T D^2                    L_bg likewise with M_bg
    L_att = 1/N sum_{n,c} |A^S - A^T| + s/N sum_{n,p} |P^S - P^T|
    L_rel = 1/N sum_{n,c,p} (R_S(F^S) - R_T(F^T))^2,  R(F) = F + g(sum_p softmax_p(k * F) F)
    L = sum_l alpha L_fg + beta L_bg + gamma L_att + lambda L_rel

A box is scaled to the level by (W/w, H/h), (h, w) the image without padding; it covers the rows and columns
from the floor of its near to the ceiling of its far corner, both included, and area counts these. R is
GCNet's context block: k a 1x1 convolution to one channel; g = 1x1 (C to C/2), LayerNorm, ReLU, 1x1 (C/2 to C,
zero at the start, so that R starts as the identity). R_T is trained too, as released.

Shapes: ``F [N, C, H, W]``, masks ``[N, H, W]``, boxes ``[G, 4]`` xyxy in input pixels. Needs ground-truth
boxes.

Settings at full scale (256 channels): RetinaNet and GFL T 0.5, alpha 1e-3; FCOS T 0.8, alpha 1.6e-3;
RepPoints T 0.5, alpha 1.6e-3; beta = gamma = alpha/2, lambda = alpha/200, s = 1 in all of these. There is no
released configuration for ATSS. L_fg, L_bg and L_rel are sums over channels, so alpha goes with 1/C; the spatial half
of L_att is a sum over positions, hence s.

Deviations: none known. Kept from the release though questionable: boxes are scaled by the size without
padding onto a map of the padded batch, which misplaces them in padded images; the teacher's context block is
trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pgd.dense import DistillStep
from pgd.maths.attention import pooled_channel_attention, spatial_attention, weighted_square_distance
from pgd.methods.base import METHODS, Method, MethodContext


def foreground_mask(gt_boxes: Tensor, image_size: Sequence[int], size: Sequence[int]) -> Tensor:
    """1/area of the smallest box that covers a cell, 0 where none does.

    Args:
        gt_boxes: ``[G, 4]`` xyxy pixels; G may be 0.
        image_size: (height, width) that the boxes are scaled by.
        size: (H, W) of the level.

    Returns:
        ``[H, W]``; area in cells, of the whole rectangle even where it leaves the map.
    """
    (height, width), (rows, columns) = image_size, size
    if gt_boxes.size(0) == 0:
        return gt_boxes.new_zeros((rows, columns))
    # Divide first: the release does, and the floor and the ceiling see the rounding.
    left, right = (gt_boxes[:, 0] / width * columns).floor(), (gt_boxes[:, 2] / width * columns).ceil()
    top, bottom = (gt_boxes[:, 1] / height * rows).floor(), (gt_boxes[:, 3] / height * rows).ceil()
    y, x = (torch.arange(n, dtype=gt_boxes.dtype, device=gt_boxes.device) for n in (rows, columns))
    in_rows = (y >= top[:, None]) & (y <= bottom[:, None])
    in_columns = (x >= left[:, None]) & (x <= right[:, None])
    per_cell = 1 / ((bottom - top + 1) * (right - left + 1))
    covered = in_rows[:, :, None] & in_columns[:, None, :]
    return (covered * per_cell[:, None, None]).amax(dim=0)


def background_mask(foreground: Tensor) -> Tensor:
    """The cells without foreground, shared out evenly in each image: ``[N, H, W]`` to ``[N, H, W]``."""
    empty = (foreground == 0).to(foreground.dtype)
    return empty / empty.sum(dim=(1, 2), keepdim=True).clamp(min=1)


def fgd_focal_loss(
    student: Tensor,
    teacher: Tensor,
    foreground: Tensor,
    background: Tensor,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    temperature: float,
    spatial_ratio: float = 1.0,
) -> Tensor:
    """alpha L_fg + beta L_bg + gamma L_att of one level: features ``[N, C, H, W]``, masks ``[N, H, W]``."""
    n = student.size(0)
    spatial_s, spatial_t = (spatial_attention(f, temperature) for f in (student, teacher))
    channel_s, channel_t = (pooled_channel_attention(f, temperature) for f in (student, teacher))
    mask = alpha * foreground + beta * background
    weight = (mask * spatial_t).unsqueeze(1) * channel_t[:, :, None, None]
    feature = weighted_square_distance(student, teacher, weight).sum()
    attention = (channel_s - channel_t).abs().sum() + spatial_ratio * (spatial_s - spatial_t).abs().sum()
    return (feature + gamma * attention) / n


def _context_transform(channels: int) -> nn.Sequential:
    """g of the module docstring; its last layer is zero."""
    inner = channels // 2
    layers = nn.Sequential(
        nn.Conv2d(channels, inner, 1),
        nn.LayerNorm([inner, 1, 1]),
        nn.ReLU(),
        nn.Conv2d(inner, channels, 1),
    )
    nn.init.zeros_(layers[-1].weight)
    nn.init.zeros_(layers[-1].bias)
    return layers


def _context_mask(channels: int) -> nn.Conv2d:
    """k of the module docstring."""
    conv = nn.Conv2d(channels, 1, 1)
    # By fan-in, as GCNet does: the fan-out of a single channel would make the softmax start as a hard choice.
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    nn.init.zeros_(conv.bias)
    return conv


def _with_context(features: Tensor, conv_mask: nn.Module, channel_add: nn.Module) -> Tensor:
    """R of the module docstring: ``[N, C, H, W]`` to the same."""
    share = conv_mask(features).flatten(2).softmax(dim=2)
    context = torch.einsum("ncp,nkp->nc", features.flatten(2), share)
    return features + channel_add(context[:, :, None, None])


class FGDLevel(nn.Module):
    """What FGD trains for one level. The names of its submodules are those of the release."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        if student_channels == teacher_channels:
            self.align = nn.Identity()
        else:
            self.align = nn.Conv2d(student_channels, teacher_channels, 1)
        self.conv_mask_s = _context_mask(teacher_channels)
        self.conv_mask_t = _context_mask(teacher_channels)
        self.channel_add_conv_s = _context_transform(teacher_channels)
        self.channel_add_conv_t = _context_transform(teacher_channels)

    def relation_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """L_rel of aligned features ``[N, C, H, W]``; a scalar."""
        student = _with_context(student, self.conv_mask_s, self.channel_add_conv_s)
        teacher = _with_context(teacher, self.conv_mask_t, self.channel_add_conv_t)
        return ((student - teacher) ** 2).sum() / student.size(0)

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        foreground: Tensor,
        background: Tensor,
        *,
        lambda_: float,
        **focal_settings: float,
    ) -> tuple[Tensor, Tensor]:
        """The focal and the global part of the level's loss; arguments as :func:`fgd_focal_loss`."""
        student = self.align(student)
        focal = fgd_focal_loss(student, teacher, foreground, background, **focal_settings)
        return focal, lambda_ * self.relation_loss(student, teacher)


@METHODS.register_module(name="fgd")
class FGD(Method):
    """Focal and global distillation; ``beta``, ``gamma`` and ``lambda`` are multiples of ``alpha``."""

    title, place = "FGD", "neck"
    needs = frozenset({"neck", "ground_truth"})
    weight_setting = "alpha"
    published = {"fcos": {"alpha": 1.6e-3, "temperature": 0.8}}
    scaling = {
        "alpha": {"channels": 1},
        "lambda_ratio": {"positions": 1},
        "spatial_ratio": {"channels": -1, "positions": 1},
    }

    def __init__(
        self,
        context: MethodContext,
        alpha: float = 1e-3,
        beta_ratio: float = 0.5,
        gamma_ratio: float = 0.5,
        lambda_ratio: float = 5e-3,
        temperature: float = 0.5,
        spatial_ratio: float = 1.0,
    ) -> None:
        super().__init__(context)
        self.settings = {
            "alpha": alpha,
            "beta": beta_ratio * alpha,
            "gamma": gamma_ratio * alpha,
            "lambda_": lambda_ratio * alpha,
            "temperature": temperature,
            "spatial_ratio": spatial_ratio,
        }
        self.levels = nn.ModuleList(
            FGDLevel(context.student_channels, context.teacher_channels) for _ in range(context.num_levels)
        )

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        focal_loss = global_loss = 0.0
        for level, student, teacher in zip(self.levels, step.student.neck, step.teacher.neck, strict=True):
            size = student.shape[-2:]
            images = zip(step.gt_boxes, step.image_sizes, strict=True)
            foreground = torch.stack([foreground_mask(*image, size) for image in images])
            background = background_mask(foreground)
            focal, relation = level(student, teacher, foreground, background, **self.settings)
            focal_loss, global_loss = focal_loss + focal, global_loss + relation
        return {"loss_fgd_focal": focal_loss, "loss_fgd_global": global_loss}
