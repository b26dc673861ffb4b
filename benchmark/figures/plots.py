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

from benchmark.evidence.record import TEACHER
from benchmark.evidence.records import by_kind

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
DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
#: Curves of more runs than this cannot all be told apart: the plain runs, PGD and the best others are coloured.
MANY = 8
BEST = 3
#: inches a row of a figure with a row for each run, and a label at a curve's end
ROW, LABEL = 0.29, 0.17


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


def lines_of(table: pd.DataFrame) -> list[tuple[str, pd.Series | None]]:
    """The lines of a figure with one a run: students, headed by their pair (a line without a run) if there are more."""
    lines: list[tuple[str, pd.Series | None]] = []
    students = table[table["role"] != TEACHER]
    for pair, rows in students.groupby("pair", sort=False):
        if students["pair"].nunique() > 1:
            lines.append((pair, None))
        for _, row in rows.iterrows():
            lines.append((row["run"] if row["inherit"] == "none" else f"{row['run']} ({row['inherit']})", row))
    return lines


def draw_levels(axes: Axes, lines: list, table: pd.DataFrame, metric: str) -> None:
    """Teacher and student alone as vertical lines along the runs of their pair."""
    for pair, rows in table.groupby("pair", sort=False):
        own = [y for y, (_, row) in enumerate(lines) if row is not None and row["pair"] == pair]
        plain = rows[(rows["role"] != TEACHER) & (rows["method"] == "none") & (rows["inherit"] == "none")]
        for name, level in {"teacher": rows[rows["role"] == TEACHER], "student alone": plain}.items():
            if len(level) and own:
                line = {"color": COLOURS["none"], "linewidth": 1.2, "linestyle": LEVELS[name], "zorder": 1}
                axes.vlines(level[metric].mean(), min(own) - 0.5, max(own) + 0.5, **line)


def draw_seeds(axes: Axes, lines: list, records: pd.DataFrame, metric: str) -> None:
    """One line a run: a dot a seed and, where there are several, a tick for their mean."""
    for y, (_, row) in enumerate(lines):
        if row is None:
            continue
        values = records.loc[records["run"] == row["run"], metric].to_numpy(dtype=float)
        # seeds a little apart, so that equal ones do not hide each other
        offsets = (np.arange(len(values)) - (len(values) - 1) / 2) * min(0.18, 0.5 / len(values))
        axes.scatter(values, y + offsets, s=32, color=paint(row), edgecolor="white", zorder=3)
        if len(values) > 1:
            axes.vlines(values.mean(), y - 0.36, y + 0.36, color=paint(row), linewidth=2.2, zorder=2)


def draw_gains(axes: Axes, lines: list, name: str) -> None:
    """One line a run: the difference to its baseline with its interval."""
    axes.axvline(0, color=COLOURS["none"], linewidth=1.1, zorder=1)
    for y, (_, row) in enumerate(lines):
        if row is not None and pd.notna(row[name]):
            axes.hlines(y, row[f"{name}_low"], row[f"{name}_high"], color=paint(row), linewidth=2, zorder=2)
            axes.scatter(row[name], y, s=40, color=paint(row), edgecolor="white", zorder=3)


def _by_run(records: pd.DataFrame, table: pd.DataFrame, metrics: Sequence[str], gain: str, label: str) -> Figure:
    """A row a kind of metric, a line a run; panels for the metrics, and after the first one for its gain."""
    style()
    kinds = list(by_kind(table))
    lines = {kind: lines_of(rows) for kind, rows in kinds}
    counts = [len(own) for own in lines.values()]
    height = max(2.6, ROW * sum(counts) + 0.95 * len(kinds) + 0.45)
    figure = Figure(figsize=(8.8, height), layout="constrained")
    ratios = [1.25, 1, *[1] * (len(metrics) - 1)]
    grid = figure.subplots(len(kinds), len(ratios), squeeze=False, width_ratios=ratios, height_ratios=counts)
    for (kind, rows), panels in zip(kinds, grid, strict=True):
        own = lines[kind]
        name = f"{metrics[0]} (%)" if len(kinds) == 1 else f"{metrics[0]} (%), {', '.join(rows['dataset'].unique())}"
        draw_gains(panels[1], own, gain)
        panels[1].set_xlabel(f"{label}\n(95% interval)")
        for metric, axes in zip(metrics, (panels[0], *panels[2:]), strict=True):
            draw_levels(axes, own, rows, metric)
            draw_seeds(axes, own, records, metric)
            axes.set_xlabel(name if metric == metrics[0] else f"{metric} (%)")
        for axes in panels:
            axes.set(ylim=(len(own) - 0.4, -0.6))
            axes.set_yticks(range(len(own)), [text for text, _ in own] if axes is panels[0] else [])
            axes.margins(x=0.08)
            axes.grid(axis="y", visible=False)
            for y, (_, row) in enumerate(own):
                if row is not None:
                    axes.axhline(y, color="#ededed", linewidth=0.8, zorder=0)
            sns.despine(ax=axes)
        for text, (_, row) in zip(panels[0].get_yticklabels(), own, strict=True):
            text.set_fontweight("bold" if row is None else "normal")
    used = legend_of(row for own in lines.values() for _, row in own if row is not None)
    handles = [Line2D([], [], color=COLOURS["none"], linestyle=look, label=name) for name, look in LEVELS.items()]
    handles += [Line2D([], [], color=tint, marker="o", linestyle="", label=name) for name, tint in used.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.2, handletextpad=0.4)
    return figure


def ap_by_run(records: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """AP of every run, a dot a seed, beside its gain; one block for each kind of metric."""
    return _by_run(records, table, ["AP"], "gain", "gain in AP")


def mr_by_run(records: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """The same for the miss rate (lower is better) and its change, and JI, of runs with CrowdHuman's metric."""
    kind = table["metric"] == "crowdhuman"
    return _by_run(records, table[kind], ["MR", "JI"], "MR_change", "change of MR")


def smoothed(curves: pd.DataFrame, share: float = 0.05) -> pd.DataFrame:
    """The rows with a loss, each loss replaced by the running mean over a share of its curve."""
    rows = curves.dropna(subset="loss").sort_values(["run", "seed", "step"], kind="stable")
    loss = rows.groupby(["run", "seed"])["loss"].transform(
        lambda values: values.rolling(max(1, round(share * len(values))), center=True, min_periods=1).mean()
    )
    return rows.assign(loss=loss)


def looks(curves: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How each run of one pair is drawn: its place's colour and a dash of its own, or pale if it is one of many."""
    runs = curves.drop_duplicates("run").set_index("run")
    last = curves.dropna(subset="AP").sort_values("step", kind="stable").groupby(["run", "seed"])["AP"].last()
    tints = pd.Series({run: paint(row) for run, row in runs.iterrows()})
    pgd = [run for run in runs.index if tints[run] == COLOURS["key regions"]]
    # of an ablation's many, the first stands for PGD
    named = pgd[:1] if len(pgd) > 2 else pgd
    others = [run for run in runs.index if tints[run] != COLOURS["none"] and run not in named]
    best = sorted(others, key=lambda run: -last.get(run, pd.Series([0.0])).mean())[:BEST]
    shown = [run for run in runs.index if len(runs) <= MANY or run in best or run not in others]
    nth = tints[shown].groupby(tints[shown]).cumcount()
    pale = {"color": PALE, "linewidth": 1.0, "linestyle": "-", "zorder": 2}
    return {
        run: {"color": tints[run], "linewidth": 1.8, "linestyle": DASHES[nth[run] % len(DASHES)], "zorder": 3}
        if run in nth
        else pale
        for run in runs.index
    }


def spread_out(values: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Places as near to the values as may be, in their order, ``gap`` apart, inside [low, high] if they fit."""
    order = np.argsort(values, kind="stable")
    wanted = np.asarray(values, dtype=float)[order] - gap * np.arange(len(values))
    # isotonic regression: neighbours that are too close share the mean of what they want
    blocks: list[list[float]] = []
    for value in wanted:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    level = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    level = np.clip(level, low, max(low, high - gap * (len(values) - 1)))
    places = np.empty(len(values))
    places[order] = level + gap * np.arange(len(values))
    return places


def curves(curves_by_run: pd.DataFrame) -> Figure:
    """Total loss (running mean) and AP on the monitored subset by iteration, one row a pair.

    ``curves_by_run`` is the long table of :func:`benchmark.evidence.records.load_curves`. Mean over seeds and, where
    there are several, the range. Every run is named at the end of its AP.
    """
    style()
    pairs = list(curves_by_run.groupby("pair", sort=False))
    heights = [max(3.4, 1.25 * LABEL * own["run"].nunique() + 0.9) for _, own in pairs]
    figure = Figure(figsize=(8.8, sum(heights)), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    grid = figure.subplots(len(pairs), 2, squeeze=False, height_ratios=heights)
    for (pair, own), height, (left, right) in zip(pairs, heights, grid, strict=True):
        look = looks(own)
        prefix = f"{pair}: " if len(pairs) > 1 else ""
        draw_curves(left, smoothed(own), "loss", look)
        loss = left.dataLim.intervaly
        if loss[0] > 0 and loss[1] > 10 * loss[0]:
            left.set_yscale("log")
        ends = draw_curves(right, own.dropna(subset="AP"), "AP", look, marker="o")
        left.set(xlabel="iteration", ylabel="total loss (running mean)", title=f"{prefix}loss")
        right.set(xlabel="iteration", ylabel="AP on the monitored subset (%)", title=f"{prefix}accuracy")
        low, high = right.get_ylim()
        gap = LABEL * (high - low) / (height - 0.85)
        names = list(ends)
        places = spread_out([ends[name][1] for name in names], gap, low + gap / 2, high - gap / 2)
        for name, y in zip(names, places, strict=True):
            tint = look[name]["color"]
            right.annotate(
                name,
                xy=ends[name],
                xytext=(1.06, y),
                textcoords=("axes fraction", "data"),
                va="center",
                fontsize=9.5,
                color="#6b6b6b" if tint == PALE else tint,
                arrowprops={
                    "arrowstyle": "-",
                    "color": tint,
                    "linewidth": 0.7,
                    "shrinkA": 1,
                    "shrinkB": 3,
                    "relpos": (0, 0.5),
                },
            )
        for axes in (left, right):
            axes.set_xlim(left=0)
            sns.despine(ax=axes)
    return figure


def draw_curves(axes: Axes, curves: pd.DataFrame, what: str, look: dict, marker: str = "") -> dict[str, tuple]:
    """The mean curve of each run and the range of its seeds; returns the last point of each."""
    ends = {}
    for run, rows in curves.groupby("run", sort=False):
        by_step = rows.groupby("step")[what].agg(["mean", "min", "max"])
        pale = look[run]["color"] == PALE
        dots = {"marker": "" if pale else marker, "markersize": 5, "markeredgecolor": "white"}
        axes.plot(by_step.index, by_step["mean"], **dots, **look[run])
        if rows["seed"].nunique() > 1 and not pale:
            band = {"color": look[run]["color"], "alpha": 0.13, "linewidth": 0}
            axes.fill_between(by_step.index, by_step["min"], by_step["max"], **band)
        ends[run] = by_step.index[-1], by_step["mean"].iloc[-1]
    return ends
