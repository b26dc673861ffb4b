"""What a training's length does to a gain: runs that differ in nothing but their iterations, as one line."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from benchmark.evidence.lengths import lengths
from benchmark.figures.looks import COLOURS, WIDTH, below, halo, legend_of, paint, style

MARKERS = "osD^vP"


def schedule(records: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """A row a pair: AP by length of the training, and the gain over the run without a method of the same length.

    Args:
        records: with at least one row of :func:`lengths`.
        table: :func:`benchmark.evidence.records.aggregate` of them, with intervals.
    """
    style()
    points = lengths(records)[["run", "line"]].merge(table, on="run")
    pairs = list(points.groupby("pair", sort=False))
    figure = Figure(figsize=(WIDTH, 0.6 + 3.0 * len(pairs)), layout="constrained")
    grid = figure.subplots(len(pairs), 2, squeeze=False)
    for (pair, rows), (left, right) in zip(pairs, grid, strict=True):
        for order, (line, own) in enumerate(rows.groupby("line", sort=False)):
            draw(left, own, "AP", MARKERS[order % len(MARKERS)])
            if own["gain"].notna().any():
                draw(right, own.dropna(subset="gain"), "gain", MARKERS[order % len(MARKERS)])
            last = own.iloc[-1]
            name = {"va": "center", "fontsize": 9, "color": paint(last), "path_effects": halo(), "clip_on": False}
            panel, value = (left, "AP") if pd.isna(last["gain"]) else (right, "gain")
            place = {"xytext": (7, 0), "textcoords": "offset points"}
            panel.annotate(line, (last["iterations"], last[value]), **place, **name)
        right.axhline(0, color=COLOURS["none"], linewidth=1, zorder=1)
        left.set_ylabel(f"{pair}: AP (%)" if len(pairs) > 1 else "AP (%)")
        right.set_ylabel("gain in AP (95% interval)")
        for axes in (left, right):
            of_all = sorted(rows["iterations"].unique())
            axes.set_xscale("log")
            axes.set_xticks(of_all, [f"{count:,}" for count in of_all], fontsize=8.5)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("iterations of the whole training")
            sns.despine(ax=axes)
    used = legend_of(row for _, row in points.iterrows())
    below(figure, [Line2D([], [], color=tint, linewidth=2, label=name) for name, tint in used.items()])
    return figure


def draw(axes: Axes, rows: pd.DataFrame, what: str, marker: str) -> None:
    """One method: the mean over seeds by length, with the interval of a gain."""
    tint, at = paint(rows.iloc[0]), rows["iterations"].astype(float)
    axes.plot(at, rows[what], color=tint, linewidth=1.8, marker=marker, markersize=5, zorder=3)
    if what == "gain" and rows["gain_low"].notna().any():
        axes.vlines(at, rows["gain_low"], rows["gain_high"], color=tint, linewidth=1.4, alpha=0.55, zorder=2)
