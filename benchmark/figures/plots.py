"""The figures of accuracy and training, in one style. Each function takes data and returns a matplotlib Figure.

Figures are built without pyplot's figure manager, so that they need no display and leave nothing open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmark.evidence.record import TEACHER
from benchmark.evidence.records import by_kind
from benchmark.evidence.tables import by_gain, holds_zero, number, varied

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
#: The two levels that a method's figure lies between.
LEVELS = {"teacher": (0, (5, 3)), "student alone": (0, (1.2, 1.8))}
#: inches that a figure is wide, so that its letters can be read on a telephone too
WIDTH = 6.6
#: panels of a row of small ones, with short titles and with some that are longer than so many letters
COLUMNS, FEWER, LONG = 4, 3, 14
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


def lines_of(table: pd.DataFrame) -> list[tuple[str, pd.Series | None]]:
    """The lines of a figure with one a run: students, headed by their pair (a line without a run) if there are more.

    What a run inherits is said where runs with a method differ in it.
    """
    told = "inherit" in varied(table)
    lines: list[tuple[str, pd.Series | None]] = []
    students = table[table["role"] != TEACHER]
    for pair, rows in students.groupby("pair", sort=False):
        if students["pair"].nunique() > 1:
            lines.append((pair, None))
        for _, row in rows.iterrows():
            lines.append((f"{row['run']} ({row['inherit']})" if told and row["inherit"] != "none" else row["run"], row))
    return lines


def span_of(table: pd.DataFrame, records: pd.DataFrame, metric: str) -> tuple[float, float]:
    """The range of a metric that its axis shows: that of the runs that are compared, and what of teacher and plain
    students lies near it, so that two thirds of the axis belong to the compared."""
    compared = set(table["run"][table["gain"].notna()]) | set(table["baseline"].dropna())
    inner = records["run"].isin(compared) if compared else records["role"] != TEACHER
    values = records.loc[inner, metric].astype(float)
    low, high = values.min(), values.max()
    length = max(high - low, 0.5)
    for value in records.loc[~inner & records["run"].isin(table["run"]), metric].astype(float).sort_values():
        if max(high, value) - min(low, value) <= 1.5 * length:
            low, high = min(low, value), max(high, value)
    margin = 0.08 * max(high - low, 0.5)
    return low - margin, high + margin


def draw_levels(axes: Axes, lines: list, table: pd.DataFrame, metric: str) -> set[str]:
    """Teacher and student alone as vertical lines along the runs of their pair; a teacher beyond the axis as a word.

    Returns which of the two have a line.
    """
    low, high = axes.get_xlim()
    drawn = set()
    for pair, rows in table.groupby("pair", sort=False):
        places = [y for y, (_, row) in enumerate(lines) if row is not None and row["pair"] == pair]
        plain = rows[(rows["role"] != TEACHER) & (rows["method"] == "none") & (rows["inherit"] == "none")]
        for name, level in {"teacher": rows[rows["role"] == TEACHER], "student alone": plain}.items():
            if not len(level) or not places:
                continue
            value = level[metric].mean()
            if low <= value <= high:
                line = {"color": COLOURS["none"], "linewidth": 1.2, "linestyle": LEVELS[name], "zorder": 1}
                axes.vlines(value, min(places) - 0.5, max(places) + 0.5, **line)
                drawn.add(name)
            elif name == "teacher":
                # above the first run, whose own line it is not
                edge_mark(axes, value, min(places) - 0.62, f"teacher {number(value)}")
    return drawn


def edge_mark(axes: Axes, value: float, y: float, text: str) -> None:
    """A word at that edge of the axes beyond which a value lies."""
    right = value > axes.get_xlim()[1]
    axes.annotate(
        f"{text} \u25b8" if right else f"\u25c2 {text}",
        (1 if right else 0, y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-3 if right else 3, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        fontsize=9,
        color=COLOURS["none"],
    )


def draw_seeds(axes: Axes, lines: list, records: pd.DataFrame, metric: str) -> None:
    """One line a run: a dot a seed and, where there are several, a tick for their mean; beyond the axes a word."""
    low, high = axes.get_xlim()
    for y, (_, row) in enumerate(lines):
        if row is None:
            continue
        values = records.loc[records["run"] == row["run"], metric].to_numpy(dtype=float)
        if not low <= values.mean() <= high:
            edge_mark(axes, values.mean(), y, number(values.mean()))
            continue
        # seeds a little apart, so that equal ones do not hide each other
        offsets = (np.arange(len(values)) - (len(values) - 1) / 2) * min(0.18, 0.5 / len(values))
        axes.scatter(values, y + offsets, s=32, color=paint(row), edgecolor="white", zorder=3)
        if len(values) > 1:
            axes.vlines(values.mean(), y - 0.36, y + 0.36, color=paint(row), linewidth=2.2, zorder=2)


def draw_gains(axes: Axes, lines: list, name: str) -> None:
    """One line a run: the difference to its baseline with its interval, hollow where that holds zero."""
    axes.axvline(0, color=COLOURS["none"], linewidth=1.1, zorder=1)
    for y, (_, row) in enumerate(lines):
        if row is not None and pd.notna(row[name]):
            axes.hlines(y, row[f"{name}_low"], row[f"{name}_high"], color=paint(row), linewidth=2, zorder=2)
            open_dot = holds_zero(row, name)
            dot = {"facecolor": "white" if open_dot else paint(row), "edgecolor": paint(row) if open_dot else "white"}
            axes.scatter(row[name], y, s=40, linewidth=1.4 if open_dot else 1, zorder=3, **dot)


def _by_run(records: pd.DataFrame, table: pd.DataFrame, metrics: Sequence[str], gain: str, label: str) -> Figure:
    """A row a kind of metric, a line a run, sorted by gain; panels for the metrics, the second one for the gain."""
    style()
    kinds = list(by_kind(by_gain(table)))
    lines = {kind: lines_of(rows) for kind, rows in kinds}
    counts = [len(entries) for entries in lines.values()]
    height = max(2.6, ROW * sum(counts) + 0.95 * len(kinds) + 0.45)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    ratios = [1.25, 1, *[1] * (len(metrics) - 1)]
    drawn: set[str] = set()
    grid = figure.subplots(len(kinds), len(ratios), squeeze=False, width_ratios=ratios, height_ratios=counts)
    for (kind, rows), panels in zip(kinds, grid, strict=True):
        entries = lines[kind]
        name = f"{metrics[0]} (%)" if len(kinds) == 1 else f"{metrics[0]} (%), {', '.join(rows['dataset'].unique())}"
        draw_gains(panels[1], entries, gain)
        panels[1].margins(x=0.08)
        panels[1].set_xlabel(f"{label}\n(95% interval)")
        for metric, axes in zip(metrics, (panels[0], *panels[2:]), strict=True):
            axes.xaxis.set_major_locator(MaxNLocator(6 - len(metrics)))
            axes.set_xlim(span_of(rows, records[records["run"].isin(rows["run"])], metric))
            drawn |= draw_levels(axes, entries, rows, metric)
            draw_seeds(axes, entries, records, metric)
            axes.set_xlabel(name if metric == metrics[0] else f"{metric} (%)")
        for axes in panels:
            axes.set(ylim=(len(entries) - 0.4, -0.95))
            axes.set_yticks(range(len(entries)), [text for text, _ in entries] if axes is panels[0] else [])
            axes.grid(axis="y", visible=False)
            for y, (_, row) in enumerate(entries):
                if row is not None:
                    axes.axhline(y, color="#ededed", linewidth=0.8, zorder=0)
            sns.despine(ax=axes)
        for text, (_, row) in zip(panels[0].get_yticklabels(), entries, strict=True):
            text.set_fontweight("bold" if row is None else "normal")
    used = legend_of(row for entries in lines.values() for _, row in entries if row is not None)
    handles = [
        Line2D([], [], color=COLOURS["none"], linestyle=LEVELS[name], label=name) for name in LEVELS if name in drawn
    ]
    handles += [Line2D([], [], color=tint, marker="o", linestyle="", label=name) for name, tint in used.items()]
    below(figure, handles)
    return figure


def ap_by_run(records: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """AP of every run, a dot a seed, beside its gain; one block for each kind of metric."""
    return _by_run(records, table, ["AP"], "gain", "gain in AP")


def mr_by_run(records: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """The same for the miss rate (lower is better) and its change, and JI, of runs with CrowdHuman's metric."""
    kind = table["metric"] == "crowdhuman"
    return _by_run(records, table[kind], ["MR", "JI"], "MR_change", "change of MR")


def gain_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """What each run's AP is ahead of its baseline's, by seed and step: the rows with an AP, with ``gain``."""
    measured = curves.dropna(subset="AP")
    base = measured[["run", "seed", "step", "AP"]].rename(columns={"run": "baseline", "AP": "without"})
    both = measured.merge(base, on=["baseline", "seed", "step"])
    return both.assign(gain=both["AP"] - both["without"])


def curves(curves_by_run: pd.DataFrame) -> Figure:
    """The gain in AP on the monitored subset by iteration: a panel a run, sorted by the last gain, on one scale.

    ``curves_by_run`` is the long table of :func:`benchmark.evidence.records.load_curves`. Mean over seeds and, where
    there are several, the range; the other runs of the pair in grey. Without any gain: the AP of all runs.
    """
    style()
    table = gain_curves(curves_by_run)
    what = "gain" if len(table) else "AP"
    if table.empty:
        table = curves_by_run.dropna(subset="AP")
    last = table[table["step"] == table.groupby("run")["step"].transform("max")].groupby("run")[what].mean()
    panels = [
        (pair, run)
        for pair, of_pair in table.groupby("pair", sort=False)
        for run in sorted(of_pair["run"].unique(), key=lambda run: -last[run])
    ]
    rows = -(-len(panels) // (FEWER if any(len(run) > LONG for _, run in panels) else COLUMNS))
    columns = -(-len(panels) // rows)
    figure = Figure(figsize=(WIDTH, 0.75 + 1.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, (pair, run) in zip(grid, panels, strict=False):
        of_pair = table[table["pair"] == pair]
        for other, line in of_pair.groupby("run"):
            mean = line.groupby("step")[what].mean()
            axes.plot(mean.index, mean, color=PALE, linewidth=0.7, zorder=1, alpha=0 if other == run else 0.7)
        draw_curve(axes, of_pair[of_pair["run"] == run], what)
        axes.set_title(run, fontsize=9.5)
        if what == "gain":
            axes.axhline(0, color=COLOURS["none"], linewidth=1, zorder=1)
        axes.set_xlim(left=0)
        sns.despine(ax=axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("iteration", fontsize=9.5)
    figure.supylabel("gain in AP" if what == "gain" else "AP (%)", fontsize=11)
    used = legend_of(row for _, row in table.drop_duplicates("run").iterrows())
    handles = [Line2D([], [], color=tint, linewidth=2, label=name) for name, tint in used.items()]
    below(figure, handles)
    return figure


def draw_curve(axes: Axes, rows: pd.DataFrame, what: str) -> None:
    """The mean curve of a run and the range of its seeds."""
    tint, by_step = paint(rows.iloc[0]), rows.groupby("step")[what].agg(["mean", "min", "max"])
    axes.plot(by_step.index, by_step["mean"], color=tint, linewidth=2, marker="o", markersize=4, zorder=3)
    if rows["seed"].nunique() > 1:
        axes.fill_between(by_step.index, by_step["min"], by_step["max"], color=tint, alpha=0.18, linewidth=0, zorder=2)
