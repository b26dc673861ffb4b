"""Masked Generative Distillation (Yang et al., ECCV 2022, arXiv 2205.01529; released ``mgd.py``).

Place: FPN outputs, all levels (the release hooks the raw 3x3 output convolutions of the FPN, which is what an FPN
without normalisation puts out). A random mask hides positions of the student's features, and a small network restores
the teacher's from what is left:

    M(n, p) = 0 with probability mask_ratio, else 1; drawn anew for each image, level and step, shared by all channels
    L = alpha sum_l 1/N sum_{n,c,p} (G_l(M phi_l(F^S_l)) - F^T_l)^2         G = 3x3 convolution, ReLU, 3x3 convolution

over all positions, hidden or not. Adapters: G of each level, and before it phi, a 1x1 convolution where the widths
differ. Shapes: ``F [N, C, H, W]``, masks ``[N, 1, H, W]``. Needs no ground truth.

Settings at full scale: alpha 2e-5 and mask_ratio 0.65 for one-stage detectors (RetinaNet, RepPoints), 5e-7 and 0.45 for
Faster R-CNN. L is a sum over channels and positions, so alpha goes with one over both.

Deviations: none known. The mask is drawn on the features' device; the release draws it on the CPU and moves it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, aligners


def random_mask(features: Tensor, ratio: float) -> Tensor:
    """M of the module docstring for features ``[N, C, H, W]``: ``[N, 1, H, W]`` of 0 and 1."""
    drawn = torch.rand(features.size(0), 1, *features.shape[-2:], device=features.device)
    return (drawn >= ratio).to(features.dtype)


def square_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``1/N sum_{n,c,p}`` of the squared difference of features ``[N, C, H, W]``; a scalar."""
    return ((student.float() - teacher.float()) ** 2).sum() / teacher.size(0)


def generator(channels: int) -> nn.Sequential:
    """G of the module docstring."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


@METHODS.register_module(name="mgd")
class MGD(Method):
    """Restoring the teacher's neck features from a share ``1 - mask_ratio`` of the student's positions."""

    title, place = "MGD", "neck"
    needs = frozenset({"neck"})
    weight_setting = "alpha"
    scaling = {"alpha": {"channels": 1, "positions": 1}}

    def __init__(self, context: MethodContext, alpha: float = 2e-5, mask_ratio: float = 0.65) -> None:
        super().__init__(context)
        if not 0 <= mask_ratio < 1:
            raise MethodError(f"mgd: mask_ratio {mask_ratio} is a share of the positions and must be in [0, 1)")
        self.alpha, self.mask_ratio = alpha, mask_ratio
        self.adapters = aligners(context)
        self.generators = nn.ModuleList(generator(context.teacher_channels) for _ in range(context.num_levels))

    def _restored(self, features: Tensor, adapt: nn.Module, generate: nn.Module) -> Tensor:
        features = adapt(features)
        return generate(features * random_mask(features, self.mask_ratio))

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        levels = zip(step.student.neck, self.adapters, self.generators, strict=True)
        restored = [self._restored(*level) for level in levels]
        total = sum(square_distance(s, t) for s, t in zip(restored, step.teacher.neck, strict=True))
        return {"loss_mgd": self.alpha * total}
