"""Attention maps and weighted feature distances that PGD, FGD and FKD share. Pure tensor functions.

Shapes: features ``F [N, C, H, W]``; ``T`` is a temperature > 0. Every map has mean 1 over what it is normalised over,
so that a weighted distance keeps the scale of the plain one.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spatial_attention(features: Tensor, temperature: float) -> Tensor:
    """``H W softmax_p(mean_c |F| / T)`` -> ``[N, H, W]`` (FGD eq. 4; PGD and FKD use the same)."""
    n, _, h, w = features.shape
    activity = features.abs().mean(dim=1).reshape(n, h * w)
    return (h * w * torch.softmax(activity / temperature, dim=1)).reshape(n, h, w)


def channel_attention(features: Tensor, temperature: float) -> Tensor:
    """``C softmax_c(|F| / T)`` at every position -> ``[N, C, H, W]`` (PGD's released ``pgd_cls.py``)."""
    return features.size(1) * torch.softmax(features.abs() / temperature, dim=1)


def pooled_channel_attention(features: Tensor, temperature: float) -> Tensor:
    """``C softmax_c(mean_p |F| / T)`` -> ``[N, C]`` (FGD eq. 5, FKD)."""
    return features.size(1) * torch.softmax(features.abs().mean(dim=(2, 3)) / temperature, dim=1)


def weighted_square_distance(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """``sum_{c,p} weight (F^S - F^T)^2`` of each image -> ``[N]``; ``weight`` broadcasts to ``[N, C, H, W]``."""
    return (weight * (student - teacher) ** 2).flatten(1).sum(dim=1)
