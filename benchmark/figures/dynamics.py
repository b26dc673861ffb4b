"""How students come nearer to their teacher in training, and where methods push: tables and figures.

Of what :class:`benchmark.training.dynamics.Dynamics` adds to the curves of runs that have a teacher. Regions and
features are :data:`~benchmark.training.result.REGIONS` and :data:`~benchmark.training.result.FEATURES`.
Figures are of one pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from benchmark.evidence.record import TEACHER, ReportError
from benchmark.evidence.records import METHOD
from benchmark.figures.looks import COLOURS, ROW, below, paint, style
from benchmark.training.result import FEATURES, REGIONS

FEATURE_TITLES = {"neck": "neck", "cls_tower": "classification tower", "reg_tower": "regression tower"}
REGION_NAMES = {"key": "key positions", "box": "rest of the boxes", "background": "background"}
#: from dark to light: to be told apart in grey, and not one of the methods' colours
REGION_LOOKS = {"key": ("#12355b", "o"), "box": ("#5b9bd5", "D"), "background": ("#c3cfdb", "s")}
DISTANCES = [f"distance.{features}.{region}" for features, region in product(FEATURES, REGIONS)]
GRADIENTS = [f"gradient.{region}" for region in REGIONS]
WIDTH = 8.8
#: of runs of one colour, one after the other
DASHES = ("-", (0, (1, 1)), (0, (3.5, 1, 1, 1)), (0, (6, 1.5)))


def load_dynamics(results: Path, records: pd.DataFrame) -> pd.DataFrame:
    """The points of all runs at which distances were measured, in one long table; absent figures are NaN.

    Raises:
        ReportError: a curve is missing, or none holds a distance.
    """
    parts = []
    for record in records[records["role"] != TEACHER].to_dict("records"):
        path = results / "curves" / f"{record['key']}.csv"
        if not path.is_file():
            raise ReportError(f"{path} is missing")
        curve = pd.read_csv(path)
        columns = [name for name in DISTANCES if name in curve]
        if not columns:
            continue
        points = curve.dropna(subset=columns, how="all").reindex(columns=["step", *DISTANCES, *GRADIENTS])
        parts.append(points.assign(**{key: record[key] for key in ("run", "seed", "pair", *METHOD, "inherit")}))
    if not parts:
        raise ReportError(
            f"{results / 'curves'}: no curve holds distances to the teacher (trained before they were measured)"
        )
    return pd.concat(parts, ignore_index=True)


def by_distance(points: pd.DataFrame) -> pd.DataFrame:
    """A row for each run, seed, step, kind of features and region, with its ``distance``."""
    keys = ["run", "seed", "step"]
    long = points.melt(id_vars=keys, value_vars=DISTANCES, value_name="distance").dropna(subset="distance")
    names = long.pop("variable").str.split(".", expand=True)
    return long.assign(features=names[1], region=names[2])


def shrinkage(points: pd.DataFrame) -> pd.DataFrame:
    """Distance at the end by that at the start, ``ratio``: a row for each run, kind of features and region.

    The geometric mean over seeds. A region whose distance is 0 at the start (equal features) has no ratio.
    """
    ends = by_distance(points).sort_values("step", kind="stable")
    ends = ends.groupby(["run", "seed", "features", "region"], sort=False)["distance"].agg(["first", "last"])
    ends = ends[ends["first"] > 0]
    ends["log"] = np.log(np.maximum(ends["last"], 1e-12) / ends["first"])
    means = ends.groupby(["run", "features", "region"], sort=False)["log"].mean()
    return np.exp(means).rename("ratio").reset_index()


def gradient_shares(points: pd.DataFrame) -> pd.DataFrame:
    """Mean shares of the method's gradient by region over points and seeds: a row a run that has a method.

    ``low`` and ``high`` are the least and the largest share on key positions at any point. Points without a gradient
    (a method that warms up from nothing) have no shares.
    """
    known = points.dropna(subset=GRADIENTS)
    known = known[known[GRADIENTS].sum(axis=1) > 0]
    groups = known.groupby("run", sort=False)
    means = groups[GRADIENTS].mean().set_axis(list(REGIONS), axis=1)
    key = groups["gradient.key"].agg(["min", "max"]).set_axis(["low", "high"], axis=1)
    return means.join(key)


def gradient_sentence(points: pd.DataFrame, positions: Mapping[str, float] | None) -> str:
    """One Markdown sentence: PGD's share of gradient on key positions beside the others', and that of positions."""
    shares = gradient_shares(points)["key"]
    places = points.drop_duplicates("run").set_index("run")["method_place"].reindex(shares.index)
    guided, others = shares[places == "key regions"], shares[places != "key regions"]
    parts = []
    if len(guided):
        parts.append(f"**{guided.index[0]}** puts {guided.iloc[0]:.0%} of its gradient on key positions")
    if len(others):
        parts.append(f"the other methods {others.min():.0%} to {others.max():.0%} (median {others.median():.0%})")
    if parts and positions:
        parts.append(f"{positions['key']:.1%} of all positions are key positions")
    return "; ".join(parts) + "." if parts else "No run of this pair has a method."


def tints(points: pd.DataFrame) -> dict[str, str]:
    """The colour of every run: that of its method's place."""
    runs = points.drop_duplicates("run")
    return {row["run"]: paint(row) for _, row in runs.iterrows()}


def looks(points: pd.DataFrame) -> dict[str, dict]:
    """How the line of every run is drawn: in the colour of its place, and dashed where another run has that colour.
    Those without a method and PGD's are strong and on top."""
    found: dict[str, dict] = {}
    colour = tints(points)
    for run, tint in colour.items():
        before = sum(colour[other] == tint for other in found)
        strong = tint in (COLOURS["none"], COLOURS["key regions"])
        weight = {"linewidth": 2.2, "zorder": 4} if strong else {"linewidth": 1.3, "alpha": 0.8, "zorder": 3}
        dashes = (0, (4, 1.6)) if tint == COLOURS["none"] else DASHES[before % len(DASHES)]
        found[run] = {"color": tint, "linestyle": dashes, **weight}
    return found


def measured(points: pd.DataFrame) -> list[str]:
    """The features for which any run has a distance."""
    return [
        name for name in FEATURES if points[[f"distance.{name}.{region}" for region in REGIONS]].notna().any().any()
    ]


def distances(points: pd.DataFrame) -> Figure:
    """Relative distance by iteration; a column a kind of features, a row a region, a line a run (mean over seeds)."""
    style()
    places, look = measured(points), looks(points)
    figure = Figure(figsize=(WIDTH, 2.15 * len(REGIONS) + 0.75), layout="constrained")
    panels = figure.subplots(len(REGIONS), len(places), squeeze=False, sharex=True, sharey="row")
    long = by_distance(points)
    for (row, region), (column, place) in product(enumerate(REGIONS), enumerate(places)):
        axes, part = panels[row, column], long[(long["region"] == region) & (long["features"] == place)]
        for run, rows in part.groupby("run", sort=False):
            means = rows.groupby("step")["distance"].mean()
            axes.plot(means.index, means, **look[run])
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(left=0)
        sns.despine(ax=axes)
    for axes, place in zip(panels[0], places, strict=True):
        axes.set_title(FEATURE_TITLES[place])
    for axes, region in zip(panels[:, 0], REGIONS, strict=True):
        axes.set_ylabel(f"{REGION_NAMES[region]}\ndistance")
    for axes in panels[-1]:
        axes.set_xlabel("iteration")
    below(figure, [Line2D([], [], label=run, **own) for run, own in look.items()])
    return figure


def plain_numbers(axis: Axis) -> None:
    """0.2 and not 2 x 10^-1 on a logarithmic axis; the shorter it is, the more labels between the powers of ten."""

    def between(value: float, _: int) -> str:
        low, high = axis.get_view_interval()
        labelled = "235" if high < 12 * low else "25" if high < 60 * low else ""
        return f"{value:g}" if f"{value:.0e}"[0] in labelled else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(between))


def run_axis(axes: Axes, runs: Sequence[str], colour: Mapping[str, str] | None) -> None:
    """Runs from top to bottom, named in their colours; without colours they have no names."""
    axes.set(ylim=(len(runs) - 0.5, -0.5))
    axes.set_yticks(range(len(runs)), runs if colour else [])
    axes.grid(axis="y", visible=False)
    if colour:
        for text, run in zip(axes.get_yticklabels(), runs, strict=True):
            text.set_color(colour[run])


def region_handles(lines: bool) -> list:
    """What the regions look like, as marks or as bars."""
    if not lines:
        return [Patch(facecolor=REGION_LOOKS[region][0], label=REGION_NAMES[region]) for region in REGIONS]
    common = {"linestyle": "", "markersize": 7, "markeredgecolor": "#4d4d4d", "markeredgewidth": 0.6}
    looks = {region: dict(zip(("color", "marker"), REGION_LOOKS[region], strict=True)) for region in REGIONS}
    return [Line2D([], [], label=REGION_NAMES[region], **looks[region], **common) for region in REGIONS]


def shrunk(points: pd.DataFrame) -> Figure:
    """What is left of the distance at the start when the training ends; a row a run, a panel a kind of features.

    In the order of the ratio on key positions, averaged (geometrically) over the places.
    """
    style()
    table, colour, places = shrinkage(points), tints(points), measured(points)
    key = table[table["region"] == "key"]
    order = np.log(key["ratio"]).groupby(key["run"]).mean().sort_values(kind="stable").index
    runs = [*order, *(run for run in table["run"].unique() if run not in order)]
    figure = Figure(figsize=(WIDTH, ROW * len(runs) + 1.35), layout="constrained")
    panels = figure.subplots(1, len(places), squeeze=False)[0]
    for axes, place in zip(panels, places, strict=True):
        ratios = table[table["features"] == place].pivot(index="run", columns="region", values="ratio").reindex(runs)
        axes.hlines(range(len(runs)), ratios.min(axis=1), ratios.max(axis=1), color="#c9c9c9", linewidth=1.6, zorder=2)
        for region in (region for region in reversed(REGIONS) if region in ratios):
            tint, mark = REGION_LOOKS[region]
            dots = {"color": tint, "marker": mark, "edgecolor": "#4d4d4d", "linewidth": 0.6, "s": 42, "zorder": 3}
            axes.scatter(ratios[region], range(len(runs)), **dots)
        axes.axvline(1, color=COLOURS["none"], linewidth=1.1, zorder=1)
        axes.set_xscale("log")
        axes.margins(x=0.08)
        plain_numbers(axes.xaxis)
        axes.set(title=FEATURE_TITLES[place], xlabel="distance at the end\nby that at the start")
        run_axis(axes, runs, colour if axes is panels[0] else None)
        sns.despine(ax=axes)
    figure.legend(handles=region_handles(lines=True), loc="outside lower center", ncols=len(REGIONS))
    return figure


def gradients(points: pd.DataFrame, positions: Mapping[str, float] | None = None) -> Figure:
    """Shares of each method's gradient by region, most on key positions first; on top the shares of all positions.

    A thin line is the range of the key share over the training. ``positions`` are shares by region; without them,
    there is no bar to compare with, nor the numbers at the right: by how much the gradient is denser on key positions
    than if it were spread evenly.
    """
    style()
    shares, colour = gradient_shares(points).sort_values("key", ascending=False, kind="stable"), tints(points)
    bars = ({"all positions": positions} if positions else {}) | shares[list(REGIONS)].to_dict("index")
    colour = colour | {"all positions": "#222222"}
    figure = Figure(figsize=(WIDTH, ROW * len(bars) + 1.2), layout="constrained")
    axes = figure.subplots()
    for y, (name, share) in enumerate(bars.items()):
        ends = np.concatenate(([0.0], np.cumsum([share[region] for region in REGIONS]))) * 100
        axes.barh(y, np.diff(ends), left=ends[:-1], color=[REGION_LOOKS[r][0] for r in REGIONS], height=0.72)
        if name in shares.index:
            axes.hlines(y, *(shares.loc[name, ["low", "high"]] * 100), color="#f0a030", linewidth=1.8, zorder=3)
            if positions and positions["key"] > 0:
                axes.text(101.5, y, f"\u00d7 {share['key'] / positions['key']:.1f}", va="center", fontsize=10)
    if positions:
        for edge in (positions["key"], positions["key"] + positions["box"]):
            axes.axvline(edge * 100, color="#222222", linewidth=1.0, linestyle=(0, (3, 2)), zorder=4)
        axes.axhline(0.5, color="#9a9a9a", linewidth=0.8)
        axes.text(101.5, 0, "key density", va="center", fontsize=10)
    axes.set(xlim=(0, 100), xlabel="share (%)")
    run_axis(axes, list(bars), colour)
    sns.despine(ax=axes, left=True)
    span = Line2D([], [], color="#f0a030", linewidth=1.8, label="key share: range in training")
    figure.legend(handles=[*region_handles(lines=False), span], loc="outside lower center", ncols=len(REGIONS) + 1)
    return figure
