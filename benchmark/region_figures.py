"""Figures of the key-region analysis, of all detectors that it looked at.  ``python -m benchmark.region_figures``

Reads the files that :mod:`benchmark.key_regions` wrote and draws ``accuracy.png`` (AP by kept share), ``controls.png``
(the same for every way of choosing), ``sizes.png`` (by the objects' size) and ``levels.png`` (where the kept stand).
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("region_figures")

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmark.experiment.cli import command_parser, run_cli
from benchmark.figures.looks import WIDTH, style

#: Okabe and Ito's colours, without their yellow, and marks, one a detector
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
#: colour, dashes and mark of each way of choosing
SELECTIONS = {
    "top": ("#d55e00", "-", "o"),
    "central": ("#0072b2", (0, (6, 1.5, 1.2, 1.5)), "s"),
    "random": ("#4d4d4d", (0, (4, 1.6)), "^"),
    "worst": ("#cc79a7", (0, (1.2, 1.2)), "v"),
}
SELECTION_NAMES = {"top": "best by quality", "central": "central", "random": "random", "worst": "worst by quality"}
MODE_TITLES = {"predictions": "Predictions dropped", "features": "Features flattened"}
SIZES = {"AP_small": "Small", "AP_medium": "Medium", "AP_large": "Large"}
SHARE_LABEL = "kept in each box (%)"
#: COCO's metric, whatever that of the experiment is: CrowdHuman's AP of the same detector is another figure
AP_LABEL = "COCO AP (%)"
#: share of boxes in which a percentage keeps one from which on it means "one"; smaller percentages are not drawn
ONE = 0.75
#: shares of the levels that their axis names; it is a square root's, as one level often has nearly all
TICKS = (0, 1, 5, 20, 50, 100)
#: share of boxes from which on a mark is hollow: the percentage is less than one prediction there, and one is kept
HOLLOW = 0.5
#: opacity of a band
BAND = 0.13


class FigureError(RuntimeError):
    """There is nothing to draw, or it cannot be read; the message names the file."""


def load(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy and levels of every detector that has a record in the folder, in order of their names."""
    names = [json.loads(path.read_text(encoding="utf-8"))["name"] for path in sorted(folder.glob("*.json"))]
    if not names:
        raise FigureError(f"{folder}: no results; run `python -m benchmark.key_regions PAIR`")
    try:
        tables = [[pd.read_csv(folder / f"{name}{suffix}.csv") for name in names] for suffix in ("", "_levels")]
    except FileNotFoundError as error:
        raise FigureError(f"{error.filename}: missing; run `python -m benchmark.key_regions` again") from None
    return pd.concat(tables[0], ignore_index=True), pd.concat(tables[1], ignore_index=True)


def looks(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour and mark of every detector."""
    names = table["name"].unique()
    return {name: (COLOURS[k % len(COLOURS)], MARKS[k % len(MARKS)]) for k, name in enumerate(names)}


def band(rows: pd.DataFrame, figure: str) -> tuple[pd.Series, pd.Series]:
    """Bounds by percent: the interval over images, mean over draws; in tables without, the lowest and highest draw."""
    groups = rows.groupby("percent")
    if f"{figure}_low" in rows:
        return groups[f"{figure}_low"].mean(), groups[f"{figure}_high"].mean()
    return groups[figure].min(), groups[figure].max()


def draw(axes: Axes, rows: pd.DataFrame, figure: str, colour: str, mark: str, banded: bool = True, **line) -> None:
    """One line: mean over draws by percent, perhaps a :func:`band` around it, hollow marks where one is kept."""
    if rows.empty:
        # this detector was not looked at in this way
        return
    by_percent = rows.groupby("percent")[figure].mean()
    hollow = rows.groupby("percent")["below_one"].first() > HOLLOW
    x, y = by_percent.index.to_numpy(), by_percent.to_numpy()
    axes.plot(x, y, color=colour, zorder=3, **line)
    if banded:
        axes.fill_between(x, *band(rows, figure), color=colour, alpha=BAND, linewidth=0, zorder=1)
    for empty in (True, False):
        at = (hollow == empty).to_numpy()
        face = "white" if empty else colour
        # a line without points, not clipped, would spoil the layout
        if at.any():
            axes.plot(x[at], y[at], mark, color=colour, markerfacecolor=face, markersize=5.5, clip_on=False, zorder=4)


def from_one(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[float, str]]:
    """The rows from the percentage on that is one position in most boxes, of every detector, and the percentages'
    labels."""
    share = table.groupby("percent")["below_one"].min()
    ones = share.index[share >= ONE]
    shown = share.index[share.index >= ones.max()] if len(ones) else share.index
    labels = {percent: "one" if percent in ones else f"{percent:g}" for percent in shown}
    return table[table["percent"].isin(shown)], labels


def share_axis(axes: Axes, labels: Mapping[float, str]) -> None:
    """Percentages on a logarithmic axis."""
    percents = list(labels)
    axes.set_xscale("log")
    axes.set_xticks(percents, list(labels.values()))
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_xlim(percents[0] / 1.15, percents[-1] * 1.15)
    sns.despine(ax=axes)


def hollow_handle() -> Line2D:
    """What a hollow mark says."""
    return Line2D([], [], color="#4d4d4d", marker="o", linestyle="", markerfacecolor="white", label="one in most boxes")


def highest(table: pd.DataFrame) -> str:
    """The detector with the highest AP at the most that was kept: its lines have bands; those of all would tangle."""
    return table.loc[table["percent"] == table["percent"].max()].groupby("name", sort=False)["AP"].mean().idxmax()


def detector_legend(figure: Figure, table: pd.DataFrame, columns: int) -> None:
    """Which colour is whose, what is solid, what dashed, what hollow, and what the band says."""
    handles = [
        Line2D([], [], color=colour, marker=mark, markersize=5.5, linewidth=2, label=name)
        for name, (colour, mark) in looks(table).items()
    ]
    for selection, dashes in (("top", "-"), ("random", SELECTIONS["random"][1])):
        name = SELECTION_NAMES[selection]
        handles.append(Line2D([], [], color="#4d4d4d", linestyle=dashes, linewidth=1.8, label=name))
    said = "95% over images" if "AP_low" in table else "range of draws"
    handles += [hollow_handle(), Patch(facecolor=looks(table)[highest(table)][0], alpha=2 * BAND, label=said)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), handlelength=3)


def by_detector(table: pd.DataFrame, panels: Sequence[tuple[str, str, str]], stacked: bool = False) -> Figure:
    """Panels (title, mode, figure), in each a solid line a detector and a dashed one for random choice; one detector's
    have bands.

    They stand side by side, or one below the other, for narrow screens.
    """
    style()
    count = len(panels)
    size = (4.4, 1.3 + 3.1 * count) if stacked else (WIDTH, 4.6)
    figure = Figure(figsize=size, layout="constrained")
    table, labels = from_one(table)
    best = highest(table)
    shape = (count, 1) if stacked else (1, count)
    row = figure.subplots(*shape, sharex=stacked, sharey=True, squeeze=False).flatten()
    for axes, (title, mode, measure) in zip(row, panels, strict=True):
        for name, (colour, mark) in looks(table).items():
            rows = table[(table["name"] == name) & (table["mode"] == mode)]
            for selection, width in (("random", 1.4), ("top", 2.0)):
                dashes = SELECTIONS[selection][1]
                drawn = rows[rows["selection"] == selection]
                draw(axes, drawn, measure, colour, mark, name == best, linestyle=dashes, linewidth=width)
        share_axis(axes, labels)
        axes.set(title=title, xlabel="" if stacked and axes is not row[-1] else SHARE_LABEL)
        axes.set_ylabel(AP_LABEL if stacked or axes is row[0] else "")
    # the panels share it; once set, it does not grow any more
    figure.axes[0].set_ylim(bottom=0)
    detector_legend(figure, table, columns=2 if stacked else 3)
    return figure


def accuracy(table: pd.DataFrame, stacked: bool = False) -> Figure:
    """AP by kept share: a line a detector, by mode."""
    modes = [mode for mode in MODE_TITLES if (table["mode"] == mode).any()]
    return by_detector(table, [(MODE_TITLES[mode], mode, "AP") for mode in modes], stacked)


def sizes(table: pd.DataFrame) -> Figure:
    """AP by kept share for small, medium and large objects, in the first mode."""
    mode = next(mode for mode in MODE_TITLES if (table["mode"] == mode).any())
    return by_detector(table, [(title, mode, measure) for measure, title in SIZES.items()], stacked=True)


def controls(table: pd.DataFrame) -> Figure:
    """AP by kept share for every way of choosing, on one scale: rows are detectors, columns modes; a thin line: all."""
    style()
    names = list(looks(table))
    modes = [mode for mode in MODE_TITLES if (table["mode"] == mode).any()]
    figure = Figure(figsize=(WIDTH, 1.1 + 1.9 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(modes), sharex=True, sharey=True, squeeze=False)
    table, labels = from_one(table)
    for line, name in zip(panels, names, strict=True):
        for axes, mode in zip(line, modes, strict=True):
            rows = table[(table["name"] == name) & (table["mode"] == mode)]
            for everything in rows["AP"][rows["percent"] == 100].head(1):
                axes.axhline(everything, color="#9a9a9a", linewidth=0.9, zorder=0)
            for selection, (colour, dashes, mark) in SELECTIONS.items():
                drawn = rows[rows["selection"] == selection]
                draw(axes, drawn, "AP", colour, mark, linestyle=dashes, linewidth=2.0 if selection == "top" else 1.5)
            share_axis(axes, labels)
        line[0].set_ylabel(f"{name}\n{AP_LABEL}")
    # all panels share it; once set, it does not grow any more
    panels[0, 0].set_ylim(bottom=0)
    for axes, mode in zip(panels[0], modes, strict=True):
        axes.set_title(MODE_TITLES[mode])
    for axes in panels[-1]:
        axes.set_xlabel(SHARE_LABEL)
    handles = [
        Line2D([], [], color=c, linestyle=d, marker=m, linewidth=1.8, markersize=5.5, label=SELECTION_NAMES[selection])
        for selection, (c, d, m) in SELECTIONS.items()
    ]
    figure.legend(handles=[*handles, hollow_handle()], loc="outside lower center", ncols=3, handlelength=3)
    return figure


def levels(table: pd.DataFrame) -> Figure:
    """Shares of the pyramid's levels in what the best by quality keep: a panel a detector, a line a level."""
    style()
    names, strides = table["name"].unique(), sorted(table["stride"].unique())
    lines = {
        stride: {"color": colour, "marker": mark, "markersize": 5, "linewidth": 1.8, "label": f"stride {stride}"}
        for stride, colour, mark in zip(strides, COLOURS, MARKS, strict=False)
    }
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(WIDTH, 1.2 + 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        shares = table[table["name"] == name].pivot(index="percent", columns="stride", values="share") * 100
        for stride in shares.columns:
            axes.plot(shares.index, shares[stride], **lines[stride], clip_on=False)
        share_axis(axes, {percent: f"{percent:g}" for percent in shares.index})
        axes.set_yscale("function", functions=(np.sqrt, np.square))
        axes.set_yticks(TICKS)
        axes.set(title=name, xlabel=SHARE_LABEL, ylim=(0, 100))
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("share of the kept (%)")
    handles = [Line2D([], [], **line) for line in lines.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.2, handlelength=1.6)
    return figure


def save_all(results: Path, out: Path) -> list[Path]:
    """Draw what is in ``results`` into ``out``; returns the files. Same data, same bytes."""
    table, kept = load(results)
    figures = {"accuracy": accuracy(table), "controls": controls(table), "sizes": sizes(table), "levels": levels(kept)}
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", metadata={"Software": None})
    return [out / f"{name}.png" for name in figures]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = command_parser("region_figures").parse_args(argv)
    for path in save_all(args.results, args.out):
        print(path)


if __name__ == "__main__":
    run_cli(main, FigureError)
