"""One figure of all: steps of methods by what they are made of, what switches are worth, how PGD's cost grows."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from benchmark.figures.looks import COLOURS, PALE, below, paint, style
from pgd.methods.base import method_class
from tools.timed.side import ALL_WORTH, WORTH

#: of a panel in inches: a row of methods or switches, and what a panel needs besides
ROW, REST, GROWTH = 0.2, 1.1, 4.6
#: values that do not all have room below a panel
MANY = 5
LABELS = {"objects": "boxes an image", "images": "images a batch", "side": "side of the image", "levels": "levels"}
TINTS = {"maps": COLOURS["key regions"], "step": COLOURS["neck"], "student": COLOURS["none"]}
FASTER = "times faster than literal"
NAMES = {"maps": "PGD's maps", "step": "PGD's step", "student": "student's step"}


def interval(axes: Axes, y: float, ratio: dict, tint: str, filled: bool = True) -> None:
    """Median and quartiles of a ratio, as a point on a line."""
    axes.hlines(y, ratio["lower"], ratio["upper"], color=tint, linewidth=1.6)
    axes.plot(ratio["median"], y, "o", color=tint, markersize=5, markerfacecolor=tint if filled else "white")


def rows_of(axes: Axes, names: list[str]) -> None:
    """Names at the rows of a panel, and a line where nothing is gained or lost."""
    axes.axvline(1, color=COLOURS["none"], linewidth=1.1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", labelsize=8)


def draw_methods(axes: Axes, title: str, found: dict[str, Any]) -> None:
    """Steps of all methods with a live teacher (full) and with a stored one (hollow)."""
    live = dict(sorted(found["live"].items(), key=lambda item: item[1]["median"]))
    for y, (method, ratio) in enumerate(live.items()):
        tint = paint({"method_place": found["place"][method]})
        interval(axes, y + 0.15, ratio, tint)
        interval(axes, y - 0.15, found["stored / student"][method], tint, filled=False)
    rows_of(axes, [method_class(name).title or name for name in live])
    axes.set(title=title.upper(), xlabel="step / its parts")


def draw_switches(axes: Axes, content: dict[str, Any]) -> None:
    """What each switch is worth alone; full where trainings have it."""
    found = content["switches"]
    worth = {name: (ratio, found["in trainings"].get(name, True)) for name, ratio in found[FASTER].items()}
    if "why not" not in (compiled := content["compiled"]):
        worth["torch.compile"] = compiled[FASTER], found["in trainings"]["torch.compile"]
    for name, ratio in found["times faster by 2 threads"].items():
        worth[f"{name}: 2 threads for 1"] = ratio, False
    if "why not" not in (side := content["side by side"]):
        worth["2 processes side by side for 1 of 2 threads"] = side[WORTH], True
        worth["side by side and all switches"] = side[ALL_WORTH], True
    worth = dict(sorted(worth.items(), key=lambda item: item[1][0]["median"]))
    for y, (ratio, kept) in enumerate(worth.values()):
        interval(axes, y, ratio, COLOURS["neck"] if kept else PALE, filled=kept)
    rows_of(axes, list(worth))
    axes.set(title="Switches of a student's step", xlabel="times faster (full: trainings have it)")


def draw_growth(figure: SubFigure, found: dict[str, Any]) -> None:
    """Time above, memory below, against each quantity."""
    panels = figure.subplots(2, len(found), sharex="col", squeeze=False)
    for column, (quantity, parts) in zip(panels.T, found.items(), strict=True):
        for part, own in parts.items():
            x = [int(value) for value in own["mb"]]
            column[0].plot(x, [spread["median"] for spread in own["ms"].values()], "o-", color=TINTS[part], ms=3)
            column[1].plot(x, list(own["mb"].values()), "o-", color=TINTS[part], ms=3)
        for axes in column:
            axes.set(xscale="log", yscale="log")
            shown = x[::2] if len(x) > MANY else x
            axes.set_xticks(shown, [str(value) for value in shown])
            axes.minorticks_off()
        column[1].set_xlabel(LABELS[quantity])
    panels[0, 0].set_ylabel("ms")
    panels[1, 0].set_ylabel("MB held")
    below(figure, [Line2D([], [], marker="o", ms=3, color=TINTS[part], label=name) for part, name in NAMES.items()])


def draw(content: dict[str, Any]) -> Figure:
    """The figure of a whole record."""
    style()
    shown = content["steps"]
    longest = max(len(found["live"]) for found in shown.values())
    heights = [REST + 1.6 * ROW * longest, REST + 1.4 * ROW * 12, GROWTH]
    figure = Figure(figsize=(9.6, sum(heights)), layout="constrained")
    upper, middle, lower = figure.subfigures(3, 1, height_ratios=heights)
    for axes, (detector, found) in zip(upper.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        draw_methods(axes, detector, found)
    keys = [
        Line2D([], [], marker="o", color=PALE, label="live teacher: by student's step + teacher's pass"),
        Line2D([], [], marker="o", color=PALE, mfc="white", label="stored teacher: by student's step"),
    ]
    below(upper, keys)
    draw_switches(middle.subplots(), content)
    draw_growth(lower, content["growth"])
    return figure
