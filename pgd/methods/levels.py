"""What methods share that work level by level: how many levels, and class logits as maps."""

from __future__ import annotations

from torch import Tensor

from pgd.dense import Grid
from pgd.methods.base import MethodContext, MethodError


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
