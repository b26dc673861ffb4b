"""How far the figures of the key-region analysis may be from those of other images: a paired bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.evidence.stats import percentile_interval
from benchmark.probe.coco_many import RANGES


def differences(values: np.ndarray, percents: Sequence[float]) -> dict[str, np.ndarray]:
    """What stands beside AP: ``change`` from keeping everything, and how far it is ``behind_top`` of the same share.

    Args:
        values: ``[S, ...]`` AP of the settings, by ranking, ``top`` first, then by share.
        percents: the shares, ascending; without 100 there is no change (NaN).

    Returns:
        ``[S, ...]`` each.
    """
    top = values[: len(percents)]
    whole = top[-1] if percents[-1] == 100 else np.full_like(top[-1], np.nan)
    return {"change": values - whole, "behind_top": np.concatenate([top] * (len(values) // len(top))) - values}


def uncertain(ap: Sequence[float], resampled: np.ndarray, percents: Sequence[float]) -> list[dict[str, float]]:
    """The differences of every setting, and the 95% intervals of AP, by size, and of the differences.

    Args:
        ap: ``[S]`` AP in percent.
        resampled: ``[S, R, B]``, on B resamples of the images, the same ones for all settings.
        percents: as in :func:`differences`.
    """
    drawn = {name: resampled[:, r] for r, name in enumerate(RANGES)} | differences(resampled[:, 0], percents)
    points, rows = differences(np.asarray(ap), percents), []
    for setting in range(len(ap)):
        row = {name: float(values[setting]) for name, values in points.items()}
        for name, values in drawn.items():
            row[f"{name}_low"], row[f"{name}_high"] = percentile_interval(values[setting])
        rows.append(row)
    return rows
