"""What methods share that work level by level: how many levels, which have positives, maps of logits, adapters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pgd.dense import Grid
from pgd.methods.base import MethodContext, MethodError, aligners


def finest(context: MethodContext, levels: int | None, method: str) -> int:
    """How many of the finest levels are taken.

    Args:
        context: the pair.
        levels: how many are asked for; None for all. A detector with fewer gives all it has.
        method: for the message.

    Raises:
        MethodError: fewer than one is asked for.
    """
    if levels is not None and levels < 1:
        raise MethodError(f"{method}: levels {levels} leaves no level; give 1 or more, or leave it out for all levels")
    return context.num_levels if levels is None else min(levels, context.num_levels)


def class_maps(logits: Tensor, grid: Grid) -> list[Tensor]:
    """Class logits ``[N, P A, C]`` to a list over levels of maps ``[N, A C, H, W]``."""
    parts = logits.split([count * grid.per_position for count in grid.counts], dim=1)
    maps = [part.reshape(len(logits), *size, -1) for part, size in zip(parts, grid.sizes, strict=True)]
    return [m.permute(0, 3, 1, 2) for m in maps]


def levels_with_positives(positive: Tensor, grid: Grid) -> Tensor:
    """Which predictions lie on a level with a positive in any image: bool ``[N, P A]`` to bool ``[P A]``."""
    levels = positive.any(dim=0).split([count * grid.per_position for count in grid.counts])
    return torch.cat([level.any().expand_as(level) for level in levels])


def near_zero_adapters(context: MethodContext, std: float, always: bool) -> nn.ModuleList:
    """A 3x3 convolution a level from the student's width to the teacher's; nothing where widths agree already.

    Args:
        context: the pair.
        std: of the weights, normal and cut off at two of it.
        always: convolutions also where widths agree.
    """
    adapters = aligners(context, kernel=3, always=always)
    for adapter in adapters:
        if isinstance(adapter, nn.Conv2d):
            nn.init.trunc_normal_(adapter.weight, std=std, a=-2 * std, b=2 * std)
    return adapters
