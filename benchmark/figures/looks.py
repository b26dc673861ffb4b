"""What all figures share: colours by place, measures, and the style.

Figures are built without pyplot's figure manager, so that they need no display and leave nothing open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke

#: Okabe and Ito's colours, one a place of distillation: seventeen methods cannot have one each that can be told apart.
COLOURS = {
    "none": "#4d4d4d",
    "neck": "#0072b2",
    "predictions": "#009e73",
    "towers": "#cc79a7",
    "key regions": "#d55e00",
    "other": "#e69f00",
}
PLACE_NAMES = {"none": "no method", "key regions": "key regions (PGD)"}
PALE = "#b4b4b4"
#: inches that a figure is wide, so that its letters can be read on a telephone too
WIDTH = 6.6
#: letters in a line of a narrow axis' label
LINE = 24
#: inches a row of a figure with a row for each run
ROW = 0.29


def style() -> None:
    """The style of all figures: light grid, no box, letters that can still be read at half width."""
    sns.set_theme(
        style="whitegrid",
        font="DejaVu Sans",
        rc={
            "font.size": 11,
            "axes.labelsize": 11,
            "axes.titlesize": 12,
            "axes.titleweight": "bold",
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 10,
            "legend.frameon": False,
            "axes.edgecolor": "#9a9a9a",
            "grid.color": "#e6e6e6",
            "grid.linewidth": 0.8,
            "text.color": "#222222",
            "axes.labelcolor": "#222222",
            "figure.dpi": 150,
        },
    )


def lowest(gains: Iterable[float], times: float = 2) -> float:
    """Where a scale of gains ends below: so many times as far under zero as the best gain is above it.

    One large loss would leave no room to tell gains apart; it stands at the edge, with its figure.
    """
    known = [gain for gain in gains if gain == gain]
    best = max(known, default=0.0)
    return -times * best if best > 0 else min(known, default=0.0)


def gain_label(label: str, over: str) -> str:
    """The label of a narrow axis of gains, with what their intervals are over, as
    :func:`benchmark.evidence.tables.chances` says it."""
    return fill(f"{label} (95%{over})", LINE)


def paint(row: Mapping[str, Any]) -> str:
    """The colour of a row of a table, of curves or of costs: that of its place."""
    return COLOURS.get(row["method_place"], COLOURS["other"])


def legend_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Legend entries of the places that there are among the rows: name and colour."""
    used = {paint(row) for row in rows}
    return {PLACE_NAMES.get(place, place): tint for place, tint in COLOURS.items() if tint in used}


def below(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A legend below the panels, in as few rows as are wide enough."""
    rows = -(-len(handles) // 5)
    place = {"loc": "outside lower center", "ncols": -(-len(handles) // rows)}
    figure.legend(handles=handles, columnspacing=1.2, handletextpad=0.5, **place)


def halo(width: float = 2.5) -> list[AbstractPathEffect]:
    """White around letters, so that no line of the grid strikes them through."""
    return [withStroke(linewidth=width, foreground="white")]
