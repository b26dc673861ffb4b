"""What a training's length does to a gain: runs that differ in nothing but their iterations, as one line."""

from __future__ import annotations

from itertools import cycle

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from benchmark.evidence.lengths import lengths
from benchmark.evidence.record import TEACHER
from benchmark.figures.looks import COLOURS, WIDTH, below, paint, style

MARKERS = "osD^vP"


#: what a panel shows, and its title
PANELS = {"AP": "AP (%)", "gain": "gain in AP", "share": "gain, % of the gap\nto the teacher"}


def with_share(table: pd.DataFrame) -> pd.DataFrame:
    """A table of runs with ``share`` in percent: the gain by what the baseline lacks to the teacher's AP; NaN without a
    teacher, or where nothing is lacking."""
    teachers = table[table["role"] == TEACHER].drop_duplicates("pair").set_index("pair")["AP"]
    gap = table["pair"].map(teachers) - (table["AP"] - table["gain"])
    return table.assign(share=100 * table["gain"] / gap.where(gap > 0))


def schedule(records: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """A row a pair, by length of the training: AP, the gain over the run without a method of the same length, and the
    gain as a share of that run's gap to the teacher, where the teacher is known.

    Args:
        records: with at least one row of :func:`lengths`.
        table: :func:`benchmark.evidence.records.aggregate` of them, with intervals.
    """
    style()
    points = lengths(records)[["run", "line"]].merge(with_share(table), on="run")
    pairs = list(points.groupby("pair", sort=False))
    panels = [name for name in PANELS if points[name].notna().any()]
    figure = Figure(figsize=(WIDTH, 0.5 + 3.0 * len(pairs)), layout="constrained")
    grid = figure.subplots(len(pairs), len(panels), squeeze=False)
    named = []
    for (pair, rows), axes_of in zip(pairs, grid, strict=True):
        lines = list(zip(rows.groupby("line", sort=False), cycle(MARKERS)))
        for (line, own), marker in lines:
            look = {"color": paint(own.iloc[0]), "marker": marker, "linewidth": 1.8, "markersize": 5}
            named.append(Line2D([], [], label=line, **look))
        of_all = sorted(rows["iterations"].unique())
        for name, axes in zip(panels, axes_of, strict=True):
            for (_, own), marker in lines:
                if own[name].notna().any():
                    draw(axes, own.dropna(subset=name), name, marker)
            if name != "AP":
                axes.axhline(0, color=COLOURS["none"], linewidth=1, zorder=1)
            axes.set_title(PANELS[name] if len(pairs) == 1 else f"{pair}: {PANELS[name]}", fontsize=10)
            axes.set_xscale("log")
            axes.set_xticks(of_all, [f"{count:,}" for count in of_all], fontsize=8, rotation=60)
            axes.xaxis.set_minor_locator(NullLocator())
            sns.despine(ax=axes)
        axes_of[len(panels) // 2].set_xlabel("iterations of the whole training")
    below(figure, named)
    return figure


def draw(axes: Axes, rows: pd.DataFrame, what: str, marker: str) -> None:
    """One method: the mean over seeds by length, with the interval of a gain."""
    tint, at = paint(rows.iloc[0]), rows["iterations"].astype(float)
    axes.plot(at, rows[what], color=tint, linewidth=1.8, marker=marker, markersize=5, zorder=3)
    if what == "gain" and rows["gain_low"].notna().any():
        axes.vlines(at, rows["gain_low"], rows["gain_high"], color=tint, linewidth=1.4, alpha=0.55, zorder=2)
