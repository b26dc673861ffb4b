"""The figure of costs: what a method gains against what a training step takes, every run named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from benchmark.figures.looks import COLOURS, WIDTH, below, legend_of, paint, style

#: marker areas in points^2: of no extra memory, and of the most
SMALLEST, LARGEST = 18.0, 220.0
FONT = 9.5


def marker_areas(megabytes: pd.Series, most: float) -> np.ndarray:
    """Marker areas in points^2 that grow with the extra memory."""
    return SMALLEST + (LARGEST - SMALLEST) * np.clip(megabytes.to_numpy(dtype=float) / max(most, 1e-9), 0, 1)


def label_boxes(sizes: np.ndarray, points: np.ndarray, radii: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Where labels go, so that none covers another or a marker, near its own: [N, 4] corners.

    Greedy, the most crowded point first: of places on growing circles the first one that is free; if none is, the one
    that covers least.

    Args:
        sizes: [N, 2] widths and heights of labels; all lengths in one unit, such as pixels.
        points: [N, 2] centres of markers.
        radii: [N] of markers.
        frame: [4] corners that labels stay within.
    """
    boxes = np.full((len(points), 4), np.nan)
    markers = np.concatenate((points - radii[:, None], points + radii[:, None]), axis=1)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    crowded = np.argsort(np.sort(distances, axis=1)[:, : min(4, len(points))].sum(axis=1), kind="stable")
    angles = np.deg2rad([0, 180, 30, -30, 150, 210, 60, -60, 120, 240, 90, -90])
    for i in crowded:
        steps = radii[i] + sizes[:, 1].max() * np.array([0.3, 0.8, 1.4, 2, 3, 4, 5.5, 7])
        turns = np.stack((np.cos(angles), np.sin(angles)), axis=1)
        # the label's nearest edge touches the circle
        centres = points[i] + (steps[:, None, None] * turns + turns * sizes[i] / 2).reshape(-1, 2)
        corners = np.concatenate((centres - sizes[i] / 2, centres + sizes[i] / 2), axis=1)
        taken = np.concatenate((markers, boxes[~np.isnan(boxes[:, 0])]))
        covered = shared(corners, taken).sum(axis=1)
        outside = (corners[:, :2] < frame[:2]).any(axis=1) | (corners[:, 2:] > frame[2:]).any(axis=1)
        boxes[i] = corners[np.argmin(covered + 1e9 * outside)]
    return boxes


def shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[A, B] areas that boxes, given by corners, have in common."""
    upper, lower = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    return np.maximum(lower - upper, 0).prod(axis=2)


def name_points(
    axes: Axes, points: np.ndarray, areas: np.ndarray, names: Sequence[str], colours: Sequence[str]
) -> None:
    """Write a name beside each point [N, 2], with a line to it where it is further away."""
    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    texts = [axes.text(0, 0, name, fontsize=FONT, color=tint) for name, tint in zip(names, colours, strict=True)]
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = np.array([(extent.width + 8, extent.height + 2) for extent in extents])
    pixels = axes.transData.transform(points)
    radii = np.sqrt(areas / np.pi) * figure.dpi / 72
    boxes = label_boxes(sizes, pixels, radii, axes.bbox.extents)
    middle = axes.transData.inverted().transform((boxes[:, :2] + boxes[:, 2:]) / 2)
    nearest = np.clip(pixels, boxes[:, :2], boxes[:, 2:])
    far = np.linalg.norm(nearest - pixels, axis=1) > radii + 8
    ends = axes.transData.inverted().transform(nearest)
    for i, text in enumerate(texts):
        # with a halo, as the lines of no gain and no cost go through names
        halo = [withStroke(linewidth=2.5, foreground="white")]
        text.set(position=middle[i], ha="center", va="center_baseline", zorder=5, path_effects=halo)
        if far[i]:
            axes.plot(*np.stack((points[i], ends[i])).T, color=colours[i], linewidth=0.7, zorder=2)


def cost(costs: pd.DataFrame) -> Figure:
    """Gain in AP against step time relative to the student alone; the area of a dot grows with the extra memory.

    ``costs`` are the rows of :func:`benchmark.evidence.records.load_costs`; those without a gain are left out.
    """
    style()
    rows = costs[costs["gain"].notna()].reset_index(drop=True)
    figure = Figure(figsize=(WIDTH, 5), layout="constrained")
    axes = figure.subplots()
    most = float(rows["extra_mb"].max())
    areas, tints = marker_areas(rows["extra_mb"], most), [paint(row) for _, row in rows.iterrows()]
    points = rows[["step_ratio", "gain"]].to_numpy(dtype=float)
    axes.scatter(*points.T, s=areas, color=tints, edgecolor="white", linewidth=0.8, zorder=3)
    axes.axhline(0, color=COLOURS["none"], linewidth=1.1, zorder=1)
    axes.axvline(1, color=COLOURS["none"], linewidth=1.1, linestyle=(0, (1.2, 1.8)), zorder=1)
    axes.set(xlabel="step time relative to the student alone", ylabel="gain in AP")
    axes.margins(0.14)
    sns.despine(ax=axes)
    used = legend_of(row for _, row in rows.iterrows())
    handles = [Line2D([], [], color=tint, marker="o", linestyle="", label=name) for name, tint in used.items()]
    for megabytes in (most / 4, most) if most > 0 else ():
        size = np.sqrt(marker_areas(pd.Series([megabytes]), most)[0])
        look = {"color": "#c4c4c4", "marker": "o", "markersize": size, "linestyle": ""}
        handles.append(Line2D([], [], label=f"+{megabytes:.0f} MB", **look))
    below(figure, handles)
    name_points(axes, points, areas, rows["run"].tolist(), tints)
    return figure
