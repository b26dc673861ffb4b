"""The figures of accuracy and training, in one style. Each function takes data and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmark.evidence.record import TEACHER
from benchmark.evidence.records import by_kind
from benchmark.evidence.tables import by_gain, chances, holds_zero, number, varied
from benchmark.figures.looks import COLOURS, PALE, ROW, WIDTH, below, gain_label, halo, legend_of, lowest, paint, style

#: The two levels that a method's figure lies between.
LEVELS = {"teacher": (0, (5, 3)), "student alone": (0, (1.2, 1.8))}
#: panels of a row of small ones, with short titles and with some that are longer than so many letters
COLUMNS, FEWER, LONG = 4, 3, 14


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


def span_of(
    table: pd.DataFrame, records: pd.DataFrame, metric: str, ends: Collection[float] = ()
) -> tuple[float, float]:
    """The range of a metric that its axis shows: that of the runs that are compared, with the ``ends`` of their
    intervals, and what of teacher and plain students lies near it, so that two thirds of the axis belong to the
    compared. A loss larger than the best gain is not among them."""
    compared = set(table["run"][table["gain"] >= lowest(table["gain"])]) | set(table["baseline"].dropna())
    inner = records["run"].isin(compared) if compared else records["role"] != TEACHER
    values = records.loc[inner, metric].astype(float)
    low, high = min([values.min(), *ends]), max([values.max(), *ends])
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
                edge_mark(axes, value > axes.get_xlim()[1], min(places) - 0.62, f"teacher {number(value)}")
    return drawn


def edge_mark(axes: Axes, right: bool, y: float, text: str) -> None:
    """A word at that edge of the axes, the right one or the left, beyond which a value lies."""
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
        path_effects=halo(),
    )


def draw_seeds(axes: Axes, lines: list, records: pd.DataFrame, metric: str, without: str | None = None) -> None:
    """One line a run: a dot a seed and, where there are several, a tick for their mean; beyond the axes words.

    Runs that have the figure named by ``without`` are left out.
    """
    low, high = axes.get_xlim()
    for y, (_, row) in enumerate(lines):
        if row is None or (without and pd.notna(row[without])):
            continue
        values = records.loc[records["run"] == row["run"], metric].to_numpy(dtype=float)
        if not low <= values.mean() <= high:
            edge_mark(axes, values.mean() > high, y, number(values.mean()))
            continue
        # seeds a little apart, so that equal ones do not hide each other
        offsets = (np.arange(len(values)) - (len(values) - 1) / 2) * min(0.18, 0.5 / len(values))
        axes.scatter(values, y + offsets, s=32, color=paint(row), edgecolor="white", zorder=3)
        for right, beyond in ((False, values[values < low]), (True, values[values > high])):
            if len(beyond):
                edge_mark(axes, right, y, ", ".join(map(number, beyond)))
        if len(values) > 1:
            axes.vlines(values.mean(), y - 0.36, y + 0.36, color=paint(row), linewidth=2.2, zorder=2)


def draw_gains(axes: Axes, lines: list, name: str, base: float = 0.0, floor: float = -np.inf) -> None:
    """One line a run: the difference to its baseline with its interval, hollow where that holds zero.

    On an axis of differences, or on that of the metric, where the baseline stands at ``base``. A difference below
    ``floor`` is a word at the edge.
    """
    axes.axvline(base, color=COLOURS["none"], linewidth=1.1, zorder=1)
    for y, (_, row) in enumerate(lines):
        if row is not None and row[name] < floor:
            edge_mark(axes, right=False, y=y, text=number(base + row[name], sign=not base))
        elif row is not None and pd.notna(row[name]):
            ends = base + row[f"{name}_low"], base + row[f"{name}_high"]
            axes.hlines(y, *ends, color=paint(row), linewidth=2, zorder=2)
            open_dot = holds_zero(row, name)
            dot = {"facecolor": "white" if open_dot else paint(row), "edgecolor": paint(row) if open_dot else "white"}
            axes.scatter(base + row[name], y, s=40, linewidth=1.4 if open_dot else 1, zorder=3, **dot)


def shared_base(rows: pd.DataFrame, metric: str, gain: str) -> float | None:
    """What all gains start from, where that is one training and each gain is one too: figures and gains are the same
    then, on axes apart by a constant. None where they are not."""
    taught = rows[rows[gain].notna()]
    own = rows[rows["run"].isin({*taught["run"], *taught["baseline"]})]
    if taught["baseline"].nunique() != 1 or (own["seeds"] > 1).any():
        return None
    return float(rows.set_index("run").loc[taught["baseline"].iloc[0], metric])


def draw_on_one_scale(
    axes: Axes, lines: list, rows: pd.DataFrame, metric: str, gain: str, label: str, floor: float
) -> None:
    """Figures and gains in one panel: the metric below, above it the ``gain`` over the baseline, with its interval."""
    base = shared_base(rows, metric, gain)
    draw_gains(axes, lines, gain, base, floor)
    above = axes.secondary_xaxis("top", functions=(lambda value: value - base, lambda value: value + base))
    above.set_xlabel(f"{label}, {rows['baseline'].dropna().iloc[0]} = 0 (95%{chances(rows['interval'])})")
    above.tick_params(length=0, pad=1)
    above.spines["top"].set_visible(False)
    for axis in (axes.xaxis, above.xaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def by_run(records: pd.DataFrame, table: pd.DataFrame, metrics: Sequence[str], gain: str, label: str) -> Figure:
    """A row a kind of metric, a line a run, sorted by gain; panels for the metrics, the second one for the gain.

    Where the gain says the same as the first metric (:func:`shared_base`), both share a panel.
    """
    style()
    kinds = list(by_kind(by_gain(table)))
    lines = {kind: lines_of(rows) for kind, rows in kinds}
    counts = [len(entries) for entries in lines.values()]
    one_scale = all(shared_base(rows, metrics[0], gain) is not None for _, rows in kinds)
    height = max(2.6, ROW * sum(counts) + (1.4 if one_scale else 0.95) * len(kinds) + 0.45)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    ratios = [1.6 if one_scale else 1.25, *[1] * (len(metrics) - one_scale)]
    drawn: set[str] = set()
    grid = figure.subplots(len(kinds), len(ratios), squeeze=False, width_ratios=ratios, height_ratios=counts)
    for (kind, rows), panels in zip(kinds, grid, strict=True):
        entries, own = lines[kind], records[records["run"].isin(rows["run"])]
        name = f"{metrics[0]} (%)" if len(kinds) == 1 else f"{metrics[0]} (%), {', '.join(rows['dataset'].unique())}"
        first, *others = panels
        # of a change for which less is better there is no loss below
        floor = lowest(rows[gain]) if gain == "gain" else -np.inf
        if not one_scale:
            apart = others.pop(0)
            draw_gains(apart, entries, gain, floor=floor)
            apart.margins(x=0.08)
            apart.set_xlabel(gain_label(label, chances(rows["interval"])))
        for metric, axes in zip(metrics, (first, *others), strict=True):
            merged = one_scale and metric == metrics[0]
            shown = rows[rows[gain] >= floor]
            ends = shown[[f"{gain}_low", f"{gain}_high"]].stack() + shared_base(rows, metric, gain) if merged else ()
            axes.xaxis.set_major_locator(MaxNLocator(6 - len(metrics)))
            axes.set_xlim(span_of(rows, own, metric, ends))
            drawn |= draw_levels(axes, entries, rows, metric)
            if merged:
                draw_on_one_scale(axes, entries, rows, metric, gain, label, floor)
            draw_seeds(axes, entries, own, metric, without=gain if merged else None)
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
    return by_run(records, table, ["AP"], "gain", "gain in AP")


def mr_by_run(records: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """The same for the miss rate (lower is better) and its change, and JI, of runs with CrowdHuman's metric."""
    kind = table["metric"] == "crowdhuman"
    return by_run(records, table[kind], ["MR", "JI"], "MR_change", "change of MR")


def gain_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """What each run's AP is ahead of its baseline's, by seed and step: the rows with an AP, with ``gain``."""
    measured = curves.dropna(subset="AP")
    base = measured[["run", "seed", "step", "AP"]].rename(columns={"run": "baseline", "AP": "without"})
    both = measured.merge(base, on=["baseline", "seed", "step"])
    return both.assign(gain=both["AP"] - both["without"])


def curves(curves_by_run: pd.DataFrame) -> Figure:
    """The gain in AP on the monitored subset by iteration: a panel a run, sorted by the last gain, on one scale.

    ``curves_by_run`` is the long table of :func:`benchmark.evidence.records.load_curves`. Mean over seeds and, where
    there are several, the range; the other runs of the pair in grey. The scale is that of the runs that lose no more
    than the best one gains; of others there is a word. Without any gain: the AP of all runs.
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
    far = {run for run in last.index if what == "gain" and last[run] < lowest(last)}
    # early on a student from nothing may be far ahead or behind, which would flatten what all end with
    late = table["step"] >= table.groupby("run")["step"].transform("max") / 2
    scale = table.loc[late & ~table["run"].isin(far), what]
    margin = 0.06 * max(scale.max() - scale.min(), 0.5)
    floor = (min(0, scale.min()) if what == "gain" else scale.min()) - margin
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
        if last[run] < floor:
            place = {"transform": axes.transAxes, "ha": "center", "fontsize": 9, "path_effects": halo()}
            axes.text(0.5, 0.08, f"\u25be {number(last[run], sign=True)} at the end", **place)
        if what == "gain":
            axes.axhline(0, color=COLOURS["none"], linewidth=1, zorder=1)
        axes.set_xlim(left=0)
        sns.despine(ax=axes)
    grid[0].set_ylim(floor, scale.max() + margin)
    for axes in grid:
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True, steps=[1, 1.5, 2, 2.5, 3, 5, 10], prune="lower"))
    for axes in grid[len(panels) :]:
        only_numbers(axes)
    figure.supxlabel("iteration", fontsize=11)
    figure.supylabel("gain in AP" if what == "gain" else "AP (%)", fontsize=11)
    used = legend_of(row for _, row in table.drop_duplicates("run").iterrows())
    handles = [Line2D([], [], color=tint, linewidth=2, label=name) for name, tint in used.items()]
    # the other side of what all x axes show
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5), columnspacing=1.2)
    return figure


def only_numbers(axes: Axes) -> None:
    """Of a place without a panel the numbers of its x axis, at the top: they are those of the panel above it."""
    axes.xaxis.tick_top()
    axes.xaxis.set_tick_params(labeltop=True, labelbottom=False, length=0)
    axes.yaxis.set_visible(False)
    axes.grid(visible=False)
    axes.patch.set_visible(False)
    sns.despine(ax=axes, left=True, bottom=True)


def draw_curve(axes: Axes, rows: pd.DataFrame, what: str) -> None:
    """The mean curve of a run and the range of its seeds."""
    tint, by_step = paint(rows.iloc[0]), rows.groupby("step")[what].agg(["mean", "min", "max"])
    axes.plot(by_step.index, by_step["mean"], color=tint, linewidth=2, marker="o", markersize=4, zorder=3)
    if rows["seed"].nunique() > 1:
        axes.fill_between(by_step.index, by_step["min"], by_step["max"], color=tint, alpha=0.18, linewidth=0, zorder=2)
