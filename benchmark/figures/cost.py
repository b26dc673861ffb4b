"""The figure of costs: what a method gains against what a training step takes, with the names there is room for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from benchmark.evidence.records import COST_SPREAD
from benchmark.evidence.tables import number
from benchmark.figures.looks import COLOURS, PALE, WIDTH, below, halo, legend_of, lowest, paint, style

#: marker areas in points^2: of the least extra memory, or where it is about the same for all, and of the most
SMALLEST, LARGEST = 30.0, 220.0
#: by how much the most extra memory must exceed the least for areas to tell of it
UNEQUAL = 1.5
#: of names: 8 pixels where the figure is as wide as a telephone
FONT = 11
#: circles around a marker on which names are tried, in heights of a name; only the nearest for those that may lack
CIRCLES, NEAR = (0.3, 0.8, 1.4, 2, 3, 4, 5.5, 7), 3
#: pixels from the middle of a bar to its rim
BAR = 2
#: pixels by which a name must be nearer to its own marker than to any other
OWN = 4


def marker_areas(megabytes: pd.Series) -> np.ndarray:
    """Marker areas in points^2 that grow with the extra memory; small ones where it is about the same for all."""
    values = np.clip(megabytes.to_numpy(dtype=float), 0, None)
    least, most = values.min(), values.max()
    if most <= UNEQUAL * least or most == 0:
        return np.full(len(values), SMALLEST)
    return SMALLEST + (LARGEST - SMALLEST) * (values - least) / (most - least)


def frontier(points: np.ndarray) -> np.ndarray:
    """[N] of points [N, 2], time and gain, those that no other beats: as much gain in less time, or more in the same.

    A loss is no gain, however fast.
    """
    time, gain = points.T
    no_slower, no_worse = time[:, None] >= time, gain[:, None] <= gain
    better = (time[:, None] > time) | (gain[:, None] < gain)
    return ~(no_slower & no_worse & better).any(axis=1) & (gain > 0)


def label_boxes(
    sizes: np.ndarray, points: np.ndarray, radii: np.ndarray, frame: np.ndarray, needed: np.ndarray, bars: np.ndarray
) -> np.ndarray:
    """Where labels go, so that none covers another, a marker or a bar, near its own: [N, 4] corners, NaN for no place.

    Greedy, the needed ones first: of places on growing circles the first one that is free; if none is, the one that
    covers least. The others only where they can be told to be their own marker's.

    Args:
        sizes: [N, 2] widths and heights of labels; all lengths in one unit, such as pixels.
        points: [N, 2] centres of markers.
        radii: [N] of markers.
        frame: [4] corners that labels stay within.
        needed: [N] which must have a place.
        bars: [M, 4] corners of what else must stay free.
    """
    boxes = np.full((len(points), 4), np.nan)
    markers = np.concatenate((points - radii[:, None], points + radii[:, None]), axis=1)
    kept_free = np.concatenate((markers, bars))
    # above and left of a point that no other beats there is no other
    turns = np.deg2rad([180, 0, 150, 30, -30, 210, 120, 60, -60, 240, 90, -90])
    turns = np.stack((np.cos(turns), np.sin(turns)), axis=1)
    for i in np.argsort(~needed, kind="stable"):
        circles = CIRCLES if needed[i] else CIRCLES[:NEAR]
        steps = radii[i] + sizes[:, 1].max() * np.array(circles)
        # the label's nearest edge touches the circle
        centres = points[i] + (steps[:, None, None] * turns + turns * sizes[i] / 2).reshape(-1, 2)
        corners = np.concatenate((centres - sizes[i] / 2, centres + sizes[i] / 2), axis=1)
        covered = shared(corners, np.concatenate((kept_free, boxes[~np.isnan(boxes[:, 0])]))).sum(axis=1)
        outside = (corners[:, :2] < frame[:2]).any(axis=1) | (corners[:, 2:] > frame[2:]).any(axis=1)
        strange = apart(corners, np.delete(points, i, 0), np.delete(radii, i)).min(axis=1, initial=np.inf)
        strange = strange < apart(corners, points[[i]], radii[[i]])[:, 0] + OWN
        best = np.argmin(covered + 1e6 * strange + 1e9 * outside)
        if needed[i] or not (covered[best] or strange[best] or outside[best]):
            boxes[i] = corners[best]
    return boxes


def shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[A, B] areas that boxes, given by corners, have in common."""
    upper, lower = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    return np.maximum(lower - upper, 0).prod(axis=2)


def apart(boxes: np.ndarray, points: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """[B, N] distances from boxes, given by corners, to the rims of markers."""
    nearest = np.clip(points, boxes[:, None, :2], boxes[:, None, 2:])
    return np.linalg.norm(nearest - points, axis=2) - radii


def name_points(
    axes: Axes,
    points: np.ndarray,
    areas: np.ndarray,
    names: Sequence[str],
    colours: Sequence[str],
    needed: np.ndarray,
    bars: np.ndarray,
) -> None:
    """Write names beside points [N, 2], those that are ``needed`` and what else there is room for beside bars.

    With a line to the name where it is further away. ``bars`` [N, 2] are the ends of horizontal ones through the
    points, NaN for none.
    """
    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    # with a halo, as the lines of no gain and of the step's spread go through names
    look = {"fontsize": FONT, "ha": "center", "va": "center_baseline", "zorder": 5, "path_effects": halo()}
    texts = [axes.text(0, 0, name, color=tint, **look) for name, tint in zip(names, colours, strict=True)]
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = np.array([(extent.width + 8, extent.height + 2) for extent in extents])
    pixels = axes.transData.transform(points)
    radii = np.sqrt(areas / np.pi) * figure.dpi / 72
    left, right = (axes.transData.transform(np.stack((end, points[:, 1]), axis=1)) for end in bars.T)
    drawn = np.concatenate((left - BAR, right + BAR), axis=1)[~np.isnan(bars[:, 0])]
    boxes = label_boxes(sizes, pixels, radii, axes.bbox.extents, needed, drawn)
    inverted = axes.transData.inverted()
    for text, box, point, pixel, radius in zip(texts, boxes, points, pixels, radii, strict=True):
        if np.isnan(box[0]):
            text.remove()
            continue
        text.set_position(inverted.transform((box[:2] + box[2:]) / 2))
        nearest = np.clip(pixel, box[:2], box[2:])
        if np.linalg.norm(nearest - pixel) > radius + 8:
            end = inverted.transform(nearest)
            axes.plot(*np.stack((point, end)).T, color=text.get_color(), linewidth=0.7, zorder=2)


def time_axis(axes: Axes, times: pd.DataFrame) -> None:
    """A logarithmic axis of ``times``, as they are ratios; with the student alone where that lies near."""
    low, high = np.nanmin(times), np.nanmax(times)
    if high - 1 <= 2.5 * (high - low):
        low = min(low, 1)
        axes.axvline(1, color=COLOURS["none"], linewidth=1.1, linestyle=(0, (1.2, 1.8)), zorder=1)
    axes.set_xscale("log")
    # a single time has a width, too
    spread = max(high / low, 1.1)
    axes.set_xlim(low / spread**0.06, high * spread**0.12)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("step time relative to the student alone")


def cost(costs: pd.DataFrame) -> Figure | None:
    """Gain in AP against step time relative to the student alone, with the quartiles of that over turns; None without
    a gain.

    Named are the runs that no other beats in both, the first of PGD, and those that there is room for. The area of a
    dot grows with the extra memory, where that differs. What loses more than the best one gains stands at the lower
    edge.
    ``costs`` are the rows of :func:`benchmark.evidence.records.load_costs`; those without a gain are left out.
    """
    # the largest first, so that none hides another
    rows = costs[costs["gain"].notna()].sort_values("gain", ascending=False, kind="stable").reset_index(drop=True)
    if rows.empty:
        return None
    style()
    figure = Figure(figsize=(WIDTH, 5), layout="constrained")
    axes = figure.subplots()
    areas, tints = marker_areas(rows["extra_mb"]), [paint(row) for _, row in rows.iterrows()]
    gains, times = rows["gain"].to_numpy(dtype=float), rows.reindex(columns=["step_ratio", *COST_SPREAD]).astype(float)
    floor = lowest(gains, times=1)
    far = gains < floor
    points = np.stack((times["step_ratio"], np.maximum(gains, floor)), axis=1)
    for inside, mark in ((~far, "o"), (far, "v")):
        own = [tint for tint, chosen in zip(tints, inside, strict=True) if chosen]
        axes.scatter(*points[inside].T, s=areas[inside], marker=mark, color=own, edgecolor="white", zorder=3)
    bars = times[[*COST_SPREAD]].to_numpy()
    axes.hlines(points[:, 1], *bars.T, color=tints, linewidth=1, alpha=0.6, zorder=2)
    best = frontier(points)
    steps = points[best][np.argsort(points[best, 0])]
    axes.step(*steps.T, where="post", color=PALE, linewidth=1.2, zorder=1)
    axes.axhline(0, color=COLOURS["none"], linewidth=1.1, zorder=1)
    time_axis(axes, times)
    axes.margins(y=0.12)
    axes.set_ylabel("gain in AP")
    sns.despine(ax=axes)
    used = legend_of(row for _, row in rows.iterrows())
    handles = [Line2D([], [], color=tint, marker="o", linestyle="", label=name) for name, tint in used.items()]
    handles.append(Line2D([], [], color=PALE, label="none gains more in less time"))
    least, most = rows["extra_mb"].min(), rows["extra_mb"].max()
    if len(set(areas)) > 1:
        look = {"color": "#c4c4c4", "marker": "o", "linestyle": ""}
        for megabytes, area in ((least, SMALLEST), (most, LARGEST)):
            handles.append(Line2D([], [], label=f"{megabytes:+.0f} MB", markersize=np.sqrt(area), **look))
    below(figure, handles)
    names = [f"{run} {number(gain)}" if low else run for run, gain, low in zip(rows["run"], gains, far, strict=True)]
    pgd = rows["run"].isin(costs.loc[costs["method"] == "pgd", "run"].head(1)).to_numpy()
    name_points(axes, points, areas, names, tints, best | far | pgd, bars)
    return figure
