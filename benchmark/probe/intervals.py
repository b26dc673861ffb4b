"""How far the figures of the key-region analysis may be from those of other images: a paired bootstrap.

Resampling few images lifts AP: each resample lacks some of the images with false alarms, and classes of few objects go
with the hard ones. The images themselves are lifted against all the images that there are in the same way, so the
intervals reflect what the resamples did about the figure (the basic bootstrap, Davison and Hinkley, 1997, section 5.2).
Percentiles would repeat the lift: on 50 images of COCO's validation set all of a NanoDet's interval lies above the AP
that its authors report for the whole set (experiments/coco-regions).
"""

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


def basic_interval(figure: float, resampled: np.ndarray) -> tuple[float, float]:
    """The interval of a figure by its values ``[B]`` on resamples: their distances from it, the other way round."""
    low, high = percentile_interval(resampled)
    return 2 * figure - high, 2 * figure - low


def uncertain(
    figures: Sequence[dict[str, float]], resampled: np.ndarray, percents: Sequence[float]
) -> list[dict[str, float]]:
    """The differences of every setting, and the 95% intervals of AP, by size, and of the differences.

    Args:
        figures: AP by size in percent, of S settings.
        resampled: ``[S, R, B]``, on B resamples of the images, the same ones for all settings.
        percents: as in :func:`differences`.
    """
    ap = {name: np.array([own[name] for own in figures]) for name in RANGES}
    differ = differences(ap["AP"], percents)
    drawn = {name: resampled[:, r] for r, name in enumerate(RANGES)} | differences(resampled[:, 0], percents)
    rows = []
    for setting in range(len(figures)):
        row = {name: float(values[setting]) for name, values in differ.items()}
        for name, values in (ap | differ).items():
            bounds = basic_interval(values[setting], drawn[name][setting])
            # no AP is below zero, though the reflection of a small one may be
            row[f"{name}_low"], row[f"{name}_high"] = np.maximum(bounds, 0) if name in ap else bounds
        rows.append(row)
    return rows
