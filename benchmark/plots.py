"""The figures, in one style. Each function takes data and returns a matplotlib Figure.

Figures are built without pyplot's figure manager, so that they need no display and leave nothing open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from benchmark.records import TEACHER, Box

#: Okabe and Ito's colours (without their yellow, too pale for lines), one a method in every figure.
COLOURS = {
    "none": "#4d4d4d",
    "fitnet": "#e69f00",
    "fgd": "#56b4e9",
    "ld": "#009e73",
    "pgd": "#d55e00",
    "pgd_released": "#cc79a7",
}
OTHER = "#0072b2"
TRUTH, CORRECT, FALSE, IGNORED = "#ffffff", "#56b4e9", "#ff3b30", "#bbbbbb"
#: The two levels that a method's AP lies between, and where they are labelled.
LEVELS = {"teacher": (0, (5, 3)), "student\nalone": (0, (1.2, 1.8))}
EDGE = {"xycoords": ("axes fraction", "data"), "color": COLOURS["none"]}
DASHES = ((), (4, 1.6), (1.2, 1.2), (6, 1.5, 1.2, 1.5))
MIN_SCORE = 0.3
MIN_IOU = 0.5


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


def colour(method: str) -> str:
    """The method's colour; methods without one of their own share one."""
    return COLOURS.get(method, OTHER)


def run_label(run: str, inherit: str) -> str:
    """A run's name for an axis, broken where it is long, and in brackets what the student inherits."""
    name = run if len(run) <= 10 else run.replace("_", "_\n").replace("-", "-\n")
    return name if inherit == "none" else f"{name}\n({inherit})"


def ap_by_run(records: pd.DataFrame) -> Figure:
    """AP of every run: a dot a seed, a tick for their mean, dashed lines for each pair's teacher and plain student."""
    style()
    students = records[records["role"] != TEACHER]
    runs = list(students.groupby("run", sort=False))
    figure = Figure(figsize=(max(7.6, 1.8 + len(runs)), 4.4), layout="constrained")
    axes = figure.subplots()
    for place, (_, group) in enumerate(runs):
        paint = colour(group["method"].iloc[0])
        offsets = (np.arange(len(group)) - (len(group) - 1) / 2) * min(0.14, 0.5 / len(group))
        axes.scatter(place + offsets, group["AP"], s=42, color=paint, edgecolor="white", zorder=3)
        axes.hlines(group["AP"].mean(), place - 0.3, place + 0.3, color=paint, linewidth=2.2, zorder=2)
    place, several = 0, records["pair"].nunique() > 1
    for name, pair in records.groupby("pair", sort=False):
        own = pair[pair["role"] != TEACHER]
        plain = own[(own["method"] == "none") & (own["inherit"] == "none")]["AP"]
        end = place + own["run"].nunique()
        for label, values in {"teacher": pair[pair["role"] == TEACHER]["AP"], "student\nalone": plain}.items():
            line = {"color": COLOURS["none"], "linewidth": 1.1, "linestyle": LEVELS[label], "zorder": 1}
            axes.hlines([values.mean()] if len(values) else [], place - 0.5, end - 0.5, **line)
            if len(values) and not several:
                axes.annotate(label, (1, values.mean()), xytext=(5, 0), textcoords="offset points", va="center", **EDGE)
        if several:
            axes.axvline(end - 0.5, color="#c8c8c8", linewidth=0.8, zorder=0)
            axes.annotate(name, ((place + end - 1) / 2, 1.02), xycoords=("data", "axes fraction"), ha="center")
        place = end
    if several:
        lines = [Line2D([], [], color=COLOURS["none"], linestyle=style) for style in LEVELS.values()]
        figure.legend(lines, [label.replace("\n", " ") for label in LEVELS], loc="outside lower center", ncols=2)
    axes.set_xticks(range(len(runs)), [run_label(run, group["inherit"].iloc[0]) for run, group in runs])
    axes.set(xlim=(-0.5, len(runs) - 0.5), ylabel="AP on the validation set (%)")
    axes.margins(y=0.1)
    axes.grid(axis="x", visible=False)
    sns.despine(ax=axes)
    return figure


def smoothed(curves: pd.DataFrame, share: float = 0.05) -> pd.DataFrame:
    """The rows with a loss, each loss replaced by the running mean over a share of its curve."""
    rows = curves.dropna(subset="loss").sort_values(["run", "seed", "step"], kind="stable")
    loss = rows.groupby(["run", "seed"])["loss"].transform(
        lambda values: values.rolling(max(1, round(share * len(values))), center=True, min_periods=1).mean()
    )
    return rows.assign(loss=loss)


def curves(curves_by_run: pd.DataFrame) -> Figure:
    """Total loss (running mean) and AP on the monitored subset by iteration; mean and range over seeds.

    ``curves_by_run`` is the long table of :func:`benchmark.records.load_curves`. Runs of one method share its
    colour and differ in their dashes.
    """
    style()
    methods = curves_by_run.drop_duplicates("run").set_index("run")["method"]
    nth = methods.groupby(methods).cumcount()
    look = {
        "hue": "run",
        "hue_order": list(methods.index),
        "palette": {run: colour(method) for run, method in methods.items()},
        "style": "run",
        "dashes": {run: DASHES[k % len(DASHES)] for run, k in nth.items()},
        "markers": dict.fromkeys(methods.index, "o"),
        "errorbar": ("pi", 100),
        "err_kws": {"alpha": 0.15, "linewidth": 0},
        "linewidth": 1.8,
    }
    figure = Figure(figsize=(8.8, 4.4), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    left, right = figure.subplots(1, 2)
    loss = smoothed(curves_by_run)
    sns.lineplot(loss, x="step", y="loss", ax=left, legend=False, markersize=0, **look)
    if loss["loss"].min() > 0 and loss["loss"].max() > 10 * loss["loss"].min():
        left.set_yscale("log")
    measured = curves_by_run.dropna(subset="AP")
    sns.lineplot(measured, x="step", y="AP", ax=right, markersize=6, **look)
    left.set(xlabel="iteration", ylabel="total loss (running mean)", title="Loss")
    right.set(xlabel="iteration", ylabel="AP on the monitored subset (%)", title="Accuracy")
    handles, labels = right.get_legend_handles_labels()
    right.get_legend().remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), handlelength=3)
    for axes in (left, right):
        axes.set_xlim(left=0)
        sns.despine(ax=axes)
    return figure


def overlap(a: Box, b: Box) -> tuple[float, float]:
    """Intersection over union, and intersection over the area of ``a`` (the rule for crowd regions)."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.xywh, b.xywh
    common = max(0.0, min(ax + aw, bx + bw) - max(ax, bx)) * max(0.0, min(ay + ah, by + bh) - max(ay, by))
    return common / max(aw * ah + bw * bh - common, 1e-9), common / max(aw * ah, 1e-9)


def judge(detections: Sequence[Box], truth: Sequence[Box]) -> Iterator[tuple[Box, str]]:
    """Each detection of score >= 0.3, best first, as "correct", "false" or "ignored" (inside a crowd region).

    Correct: it overlaps an object of its class, not yet found by a better one, with an IoU of 0.5 or more.
    """
    free = [box for box in truth if not box.crowd]
    for box in sorted((d for d in detections if d.score >= MIN_SCORE), key=lambda d: -d.score):
        rivals = [t for t in free if t.label == box.label and overlap(box, t)[0] >= MIN_IOU]
        if rivals:
            free.remove(max(rivals, key=lambda t: overlap(box, t)[0]))
            yield box, "correct"
        elif any(t.crowd and t.label == box.label and overlap(box, t)[1] >= MIN_IOU for t in truth):
            yield box, "ignored"
        else:
            yield box, "false"


LINES = {
    "truth": {"color": TRUTH, "linestyle": "-"},
    "correct": {"color": CORRECT, "linestyle": "-"},
    "false": {"color": FALSE, "linestyle": (0, (3, 1.5))},
    "ignored": {"color": IGNORED, "linestyle": (0, (1, 1.5))},
}


def draw_box(axes: Axes, box: Box, kind: str, width: float) -> None:
    """One box with a dark halo, so that it shows on any picture, and its class (and score)."""
    x, y, w, h = box.xywh
    line = LINES[kind]
    patch = Rectangle((x, y), w, h, fill=False, linewidth=1.5, **line)
    patch.set_path_effects([withStroke(linewidth=2.8, foreground="#000000a0")])
    axes.add_patch(patch)
    text = box.label if np.isnan(box.score) else f"{box.label} {box.score:.2f}"
    tag = {"boxstyle": "square,pad=0.12", "facecolor": line["color"], "edgecolor": "none", "alpha": 0.85}
    # A tag stays in the picture; a letter takes about 2.5% of its width.
    past, below = x + 0.025 * width * len(text) > width, y < 0.07 * width
    place = (width - 1 if past else max(x, 0), y + 1 if below else y)
    align = {"ha": "right" if past else "left", "va": "top" if below else "bottom"}
    axes.text(*place, text, fontsize=6.5, color="black", bbox=tag, clip_on=True, **align)


def samples(
    images: Sequence[np.ndarray],
    truth: Sequence[Sequence[Box]],
    detections: Mapping[str, Sequence[Sequence[Box]]],
) -> Figure:
    """Rows: images. Columns: ground truth, then one a detector. Correct solid, false dashed red."""
    style()
    columns = ["ground truth", *detections]
    # Photographs fill a PNG: fewer dots keep it small enough to live in git.
    figure = Figure(figsize=(2.45 * len(columns), 2.62 * len(images) + 0.4), dpi=120, layout="constrained")
    grid = figure.subplots(len(images), len(columns), squeeze=False)
    for (row, image), (column, title) in product(enumerate(images), enumerate(columns)):
        axes = grid[row, column]
        axes.imshow(image, interpolation="bilinear")
        axes.set(xticks=[], yticks=[], xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
        objects = [box for box in truth[row] if not box.crowd]
        if column == 0:
            judged = [(box, "ignored" if box.crowd else "truth") for box in truth[row]]
            note = f"{len(objects)} objects"
        else:
            judged = list(judge(detections[title][row], truth[row]))
            kinds = [kind for _, kind in judged]
            note = f"{kinds.count('correct')} of {len(objects)} found, {kinds.count('false')} false"
        for box, kind in reversed(judged):  # the best on top
            draw_box(axes, box, kind, image.shape[1])
        axes.set_xlabel(note, fontsize=9)
        if row == 0:
            axes.set_title(title)
    names = {"correct": "correct (same class, IoU ≥ 0.5)", "false": "false", "ignored": "crowd region"}
    handles = [Line2D([], [], linewidth=2, label=name, **LINES[kind]) for kind, name in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
