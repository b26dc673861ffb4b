"""FKD (also FBKD): attention-guided and non-local distillation (Zhang and Ma, ICLR 2021, openreview uKhGRvM8QNH).

The official code is not public; the forms below are those of mmrazor (``fbkd_connector.py``, ``fbkd_loss.py``) and of
copies of a one-stage version.

Place: FPN outputs, all levels. With A(p) = HW softmax_p(mean_c|F| / T) and A(c) = C softmax_c(mean_p|F| / T), M_p and
M_c the mean of the student's and the teacher's (no gradient), and phi, psi, chi, omega adapters of the level,

    L_feature  = sqrt( sum_{n,c,p} M_p M_c (phi(F^S) - F^T)^2 )                      phi 1x1 convolution
    L_channel  = sqrt( sum_{n,c} (psi(mean_p F^S) - mean_p F^T)^2 )                  psi linear
    L_spatial  = sqrt( sum_{n,p} (chi(mean_c F^S) - mean_c F^T)^2 )                  chi 3x3 convolution, 1 channel
    L_nonlocal = sqrt( sum_{n,c,p} (omega(R_S(F^S)) - R_T(F^T))^2 )                  omega 1x1 convolution
    R(F)_p = F_p + BN( W 1/K sum_k (theta(F)_p . phi'(F)_k) g(F)_k )
    L = weight sum_l of the four, each with its own weight

theta, phi', g, W are 1x1 convolutions with C/4 inner channels on the two finest levels and C/2 on the others; the K
keys k are what a max pooling of phi' and g by 8, 4, then 2 leaves. BN starts at zero, so that R starts as the identity.
R_T is trained too, as in both. Roots are of sums over the whole batch on one GPU, so they grow with the square root of
the number of images.

Shapes: ``F [N, C, H, W]`` a level. Needs no ground truth.

Settings at full scale, one-stage: weights 4.2e-4, 2.4e-2, 2.4e-2, 4.2e-4, T 0.1. Two-stage (mmrazor): 7e-5, 4e-3, 4e-3,
7e-5, T 0.5. There is no configuration for a single detector. Roots of sums over channels and positions: the weights of
features and of the non-local term go with the root of one over both, that of channels with the root of one over
channels, that of positions with the root of one over positions.

Switches: ``channel_mask=False`` leaves M_c out of L_feature and ``double_pooling=True`` pools by another factor of 2,
both as in mmrazor. Deviations: pooling is at most over the whole map (small images); a batch norm that sees a single
value takes its running statistics; convolutions start as PyTorch's do (so in the copies; mmrazor starts theta, phi' and
g from a normal distribution of deviation 0.01). Where the widths differ, which neither form serves, adapters lead to
the teacher's width and the student's A(c) is of phi(F^S).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.maths.attention import pooled_channel_attention, spatial_attention
from pgd.methods.base import METHODS, Method, MethodContext, MethodError

#: (reduction of the inner channels, pooling of the keys) of the finest levels, and of all others
NON_LOCAL = ((4, 8), (4, 4))
NON_LOCAL_BEYOND = (2, 2)


def distance(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Root of the sum of squares of the difference, each times ``mask``; a scalar, its gradient at zero is zero."""
    difference = student.float() - teacher.float()
    return torch.linalg.vector_norm(difference if mask is None else mask.sqrt() * difference)


@torch.no_grad()
def feature_mask(
    student: Tensor, teacher: Tensor, temperature: float, adapted: Tensor | None = None, channel_mask: bool = True
) -> Tensor:
    """M_p M_c of the module docstring, or M_p alone.

    Args:
        student: ``[N, C', H, W]``.
        teacher: ``[N, C, H, W]``.
        temperature: T.
        adapted: what the student's channels are judged by where C' is not C, ``[N, C, H, W]``.
        channel_mask: multiply by M_c.

    Returns:
        ``[N, C, H, W]``, or ``[N, 1, H, W]`` without channels; float32, no gradient.
    """
    student, teacher = student.float(), teacher.float()
    mask = (spatial_attention(student, temperature) + spatial_attention(teacher, temperature)).unsqueeze(1) / 2
    if not channel_mask:
        return mask
    judged = student if adapted is None else adapted.float()
    channels = pooled_channel_attention(judged, temperature) + pooled_channel_attention(teacher, temperature)
    return mask * channels[:, :, None, None] / 2


class NonLocal(nn.Module):
    """R of the module docstring with dot products in place of a softmax: ``[N, C, H, W]`` to the same."""

    def __init__(self, channels: int, reduction: int, pooling: int) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.pooling = pooling
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        # The norm behind it would undo a bias.
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def _normalised(self, x: Tensor) -> Tensor:
        if x[:, 0].numel() > 1:
            return self.norm(x)
        norm = self.norm
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    def forward(self, x: Tensor) -> Tensor:
        kernel = [min(self.pooling, side) for side in x.shape[-2:]]
        keys, values = (F.max_pool2d(conv(x), kernel).flatten(2) for conv in (self.phi, self.g))
        # Without a softmax the sum over keys can come first: no matrix of positions by keys is needed.
        mixing = values @ keys.transpose(1, 2) / keys.size(2)
        mixed = (mixing @ self.theta(x).flatten(2)).unflatten(2, x.shape[-2:])
        return x + self._normalised(self.out(mixed))


class FeatureTerm(nn.Module):
    """L_feature of one level."""

    def __init__(self, student_channels: int, teacher_channels: int, temperature: float, channel_mask: bool) -> None:
        super().__init__()
        self.temperature, self.channel_mask = temperature, channel_mask
        self.same_width = student_channels == teacher_channels
        self.adapter = nn.Conv2d(student_channels, teacher_channels, 1)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        adapted = self.adapter(student)
        judged = None if self.same_width else adapted
        mask = feature_mask(student, teacher, self.temperature, judged, self.channel_mask)
        return distance(adapted, teacher, mask)


class ChannelTerm(nn.Module):
    """L_channel of one level."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.adapter = nn.Linear(student_channels, teacher_channels)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = (features.float().mean(dim=(2, 3)) for features in (student, teacher))
        return distance(self.adapter(student), teacher)


class SpatialTerm(nn.Module):
    """L_spatial of one level."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = (features.float().mean(dim=1, keepdim=True) for features in (student, teacher))
        return distance(self.adapter(student), teacher)


class NonLocalTerm(nn.Module):
    """L_nonlocal of one level."""

    def __init__(self, student_channels: int, teacher_channels: int, reduction: int, pooling: int) -> None:
        super().__init__()
        self.student = NonLocal(student_channels, reduction, pooling)
        self.teacher = NonLocal(teacher_channels, reduction, pooling)
        self.adapter = nn.Conv2d(student_channels, teacher_channels, 1)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return distance(self.adapter(self.student(student)), self.teacher(teacher))


@METHODS.register_module(name="fkd")
class FKD(Method):
    """The four terms of the module docstring; ``weight`` scales all, a term of weight 0 is left out."""

    title, place = "FKD", "neck"
    needs = frozenset({"neck"})
    scaling = {
        "weight_feature": {"channels": 0.5, "positions": 0.5},
        "weight_channel": {"channels": 0.5},
        "weight_spatial": {"positions": 0.5},
        "weight_nonlocal": {"channels": 0.5, "positions": 0.5},
    }

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        weight_feature: float = 4.2e-4,
        weight_channel: float = 2.4e-2,
        weight_spatial: float = 2.4e-2,
        weight_nonlocal: float = 4.2e-4,
        temperature: float = 0.1,
        channel_mask: bool = True,
        double_pooling: bool = False,
    ) -> None:
        super().__init__(context)
        if temperature <= 0:
            raise MethodError(f"fkd: temperature {temperature} must be above 0")
        widths, factor = (context.student_channels, context.teacher_channels), 2 if double_pooling else 1

        def nonlocal_term(level: int) -> NonLocalTerm:
            reduction, pooling = NON_LOCAL[level] if level < len(NON_LOCAL) else NON_LOCAL_BEYOND
            return NonLocalTerm(*widths, reduction, factor * pooling)

        terms = {
            "feature": (weight_feature, lambda level: FeatureTerm(*widths, temperature, channel_mask)),
            "channel": (weight_channel, lambda level: ChannelTerm(*widths)),
            "spatial": (weight_spatial, lambda level: SpatialTerm()),
            "nonlocal": (weight_nonlocal, nonlocal_term),
        }
        terms = {name: term for name, term in terms.items() if term[0]}
        self.weights = {name: weight * own for name, (own, _) in terms.items()}
        self.terms = nn.ModuleDict(
            {name: nn.ModuleList(map(build, range(context.num_levels))) for name, (_, build) in terms.items()}
        )

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        student, teacher = step.student.neck, step.teacher.neck
        return {
            f"loss_fkd_{name}": weight * sum(term(s, t) for term, s, t in zip(levels, student, teacher, strict=True))
            for (name, levels), weight in zip(self.terms.items(), self.weights.values(), strict=True)
        }
