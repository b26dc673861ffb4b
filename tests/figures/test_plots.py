"""What figures owe their readers: labels that do not cover each other, runs that can be told apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from benchmark.figures import cost as plots_cost
from benchmark.figures import looks, plots
from pgd.methods.base import PLACES

METHODS = {
    **dict.fromkeys(("fitnet", "fgfi", "defeat", "frs", "fkd", "gid", "fgd", "mgd", "pkd", "icd"), "neck"),
    **dict.fromkeys(("ld", "cwd", "bckd", "dist"), "predictions"),
    "crosskd": "towers",
    **dict.fromkeys(("pgd", "pgd_released"), "key regions"),
}


def test_every_place_has_a_colour_of_its_own():
    assert set(PLACES) < set(looks.COLOURS)
    assert len(set(looks.COLOURS.values())) == len(looks.COLOURS)
    assert looks.paint({"method_place": "a place of one's own"}) == looks.COLOURS["other"]


def test_a_legend_names_the_places_that_there_are():
    rows = [{"method_place": place} for place in ("key regions", "none", "key regions", "mine")]
    assert list(looks.legend_of(rows)) == ["no method", "key regions (PGD)", "other"]


def curves_of(methods: list[str]) -> pd.DataFrame:
    rows = [
        {
            "run": method,
            "seed": seed,
            "method": method,
            "pair": "gfl",
            "baseline": None if method == "none" else "none",
            "method_place": METHODS.get(method, "none"),
            "step": step,
            "loss": 1.0,
            "AP": ap,
        }
        for k, method in enumerate(methods)
        for seed in (0, 1)
        for step, ap in ((10, 5.0), (20, 10.0 + k))
    ]
    return pd.DataFrame(rows)


def test_curves_are_gains_over_the_baseline():
    table = plots.gain_curves(curves_of(["none", "fitnet", "pgd"]))
    assert sorted(table["run"].unique()) == ["fitnet", "pgd"]
    assert table[(table["run"] == "pgd") & (table["step"] == 20)]["gain"].tolist() == [2.0, 2.0]


@pytest.mark.slow
def test_every_run_has_a_panel_and_the_best_comes_first():
    methods = ["none", *METHODS]
    panels = [axes for axes in plots.curves(curves_of(methods)).axes if axes.get_title()]
    # AP rises along the list
    assert [axes.get_title() for axes in panels] == methods[:0:-1]
    assert len({axes.get_ylim() for axes in panels}) == 1


@pytest.mark.slow
def test_an_incomplete_last_row_tears_nothing_apart():
    figure = plots.curves(curves_of(["none", *METHODS]))
    figure.draw_without_rendering()
    rows = sorted({round(axes.get_position().y0, 4) for axes in figure.axes})
    assert len(rows) == 5
    assert np.diff(rows) == pytest.approx(np.diff(rows)[0], abs=1e-3)
    assert figure.get_supxlabel() == "iteration"
    assert not any(axes.get_xlabel() for axes in figure.axes)
    # the panels without one below them have numbers all the same, in the empty place
    shown = [[text.get_text() for text in axes.get_xticklabels() if text.get_visible()] for axes in figure.axes[-4:]]
    assert [len(labels) > 0 for labels in shown] == [True] * 4
    assert figure.axes[-1].xaxis.get_ticks_position() == "top"


def test_without_a_gain_curves_show_the_ap():
    figure = plots.curves(curves_of(["none"]))
    assert figure.get_supylabel() == "AP (%)"
    assert figure.axes[0].lines[-1].get_ydata().tolist() == [5.0, 10.0]


def compared(*runs: tuple[str, str, str | None, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table and records of runs: name, role, baseline, AP."""
    table = pd.DataFrame(runs, columns=["run", "role", "baseline", "AP"])
    table["gain"] = table["baseline"].notna().map({True: 1.0, False: np.nan})
    return table, table[["run", "role", "AP"]]


def test_an_axis_belongs_to_what_is_compared():
    runs = [("base", "student", None, 26.0), ("best", "student", "base", 28.0)]
    far = [("teacher", "teacher", None, 33.0), ("alone", "student", None, 19.0)]
    low, high = plots.span_of(*compared(*runs, *far), "AP")
    assert 25 < low < 26
    assert 28 < high < 29
    near = plots.span_of(*compared(*runs, ("teacher", "teacher", None, 28.9)), "AP")
    assert near[1] > 28.9


def aggregated(seeds: int = 1, **changes: list) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table and records of a student, one that inherits, and two methods on top of that."""
    table = pd.DataFrame({"run": ["student", "inherit", "fgd", "pgd"], "AP": [20.0, 26.0, 27.0, 28.0]})
    gains = {"gain": [None, None, 1.0, 2.0], "gain_low": [None, None, -0.5, 1.5], "gain_high": [None, None, 2.0, 3.0]}
    words = {"method": ["none", "none", "fgd", "pgd"], "inherit": ["none", "neck", "neck", "neck"]}
    words |= {"method_place": ["none", "none", "neck", "key regions"], "baseline": [None, None, "inherit", "inherit"]}
    table["interval"] = [None, None, "images", "images"]
    same = {"role": "student", "pair": "gfl", "metric": "coco", "dataset": "mini", "seeds": seeds, "iterations": 400}
    table = table.assign(**same, **gains, **words).assign(**changes)
    return table, table.loc[table.index.repeat(seeds), ["run", "role", "AP"]]


def test_where_gain_and_ap_say_the_same_they_share_a_panel():
    table, records = aggregated()
    figure = plots.ap_by_run(records, table)
    (axes,) = figure.axes
    (above,) = axes.child_axes
    assert above.get_xlabel() == "gain in AP, inherit = 0 (95% over images, one seed)"
    figure.draw_without_rendering()
    assert np.subtract(axes.get_xlim(), above.get_xlim()) == pytest.approx(26)
    dots = {tuple(point) for dots in axes.collections for point in dots.get_offsets().tolist()}
    # the rows are in the order of the gain
    assert {(26.0, 1.0), (28.0, 2.0), (27.0, 3.0)} <= dots
    bars = [line.get_segments()[0][:, 0].tolist() for line in axes.collections if hasattr(line, "get_segments")]
    assert bars == [[27.5, 29.0], [25.5, 28.0]]
    # far below what is compared, and the grid does not strike it through
    (far,) = axes.texts
    assert far.get_text() == "\u25c2 20.0"
    assert far.get_path_effects()


@pytest.mark.parametrize(
    "changes", [{"seeds": 2}, {"baseline": [None, None, "inherit", "student"], "gain": [None, None, 1.0, 8.0]}]
)
def test_otherwise_the_gain_has_a_panel_of_its_own(changes):
    table, records = aggregated(**changes)
    assert [axes.get_xlabel() for axes in plots.ap_by_run(records, table).axes] == [
        "AP (%)",
        "gain in AP (95% over\nimages, one seed)",
    ]


def test_costs_without_a_gain_make_no_figure():
    assert plots_cost.cost(costs_of(0).assign(gain=np.nan)) is None


def test_an_improvement_of_a_miss_rate_is_no_loss():
    table, records = aggregated(seeds=2, metric="crowdhuman")
    change = {"MR_change": [None, None, -9.0, 2.0], "MR_change_low": [None, None, -9.5, 1.5]}
    table = table.assign(MR=50.0, JI=60.0, MR_change_high=[None, None, -8.5, 2.5], **change)
    records = records.assign(MR=50.0, JI=60.0)
    gains = plots.mr_by_run(records, table).axes[1]
    assert not gains.texts
    assert gains.get_xlim()[0] < -9


def test_a_loss_larger_than_the_best_gain_stands_at_the_edge():
    table, records = aggregated(seeds=2, gain=[None, None, -9.0, 2.0])
    table.loc[2, ["gain_low", "gain_high"]] = -9.5, -8.5
    _, gains = plots.ap_by_run(records, table).axes
    assert [text.get_text() for text in gains.texts] == ["\u25c2 \u22129.0"]
    assert gains.get_xlim()[0] > -2
    assert plots.lowest([2.0, float("nan"), -9.0]) == -4
    assert plots.lowest([-1.0, -9.0]) == -9, "where nothing gains there is nothing to tell apart"


def costs_of(seed: int, spread: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    count = len(METHODS)
    costs = pd.DataFrame(
        {
            "run": list(METHODS),
            "method": list(METHODS),
            "method_place": METHODS.values(),
            "step_ratio": 1.3 + np.abs(rng.normal(0, 0.15, count)),
            "extra_mb": rng.exponential(50, count),
            "gain": rng.normal(1.3, 0.5, count),
        }
    )
    # as it was measured before there were quartiles, or with them
    quartiles = {"step_ratio_low": costs["step_ratio"] - spread, "step_ratio_high": costs["step_ratio"] + spread}
    return costs.assign(**quartiles) if spread else costs


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.03])
@pytest.mark.parametrize("seed", range(4))
def test_names_of_costs_can_be_read(seed, spread):
    costs = costs_of(seed, spread)
    figure = plots_cost.cost(costs)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = np.array([text.get_window_extent(renderer).extents for text in axes.texts])
    named = {text.get_text() for text in axes.texts}
    points = costs[["step_ratio", "gain"]].to_numpy()
    best = {
        run
        for run, (time, gain) in zip(costs["run"], points, strict=True)
        if not any(t <= time and g >= gain and (t, g) != (time, gain) for t, g in points)
    }
    assert best | {"pgd"} <= named <= set(METHODS)
    assert len(named) >= 10
    covered = plots_cost.shared(boxes, boxes)
    assert (covered - np.diag(np.diag(covered))).max() == 0
    assert (boxes[:, :2] >= axes.bbox.min).all()
    assert (boxes[:, 2:] <= axes.bbox.max).all()
    dots = axes.transData.transform(points)
    ends = [axes.transData.transform(points + [side * spread, 0]) for side in (-1, 1)]
    assert plots_cost.shared(boxes, np.concatenate((dots - 2, dots + 2), axis=1)).max() == 0
    # pixels of a line, which a name that must stand somewhere may cover
    assert plots_cost.shared(boxes, np.concatenate((ends[0] - 0.5, ends[1] + 0.5), axis=1)).max() < 10
    # letters of 8 pixels where the figure is shrunk to 358
    assert min(text.get_fontsize() for text in axes.texts) * 358 / (72 * figure.get_figwidth()) >= 8


def test_the_spread_of_step_times_is_drawn():
    def ends(costs: pd.DataFrame) -> list:
        found = [
            lines.get_segments()
            for lines in plots_cost.cost(costs).axes[0].collections
            if hasattr(lines, "get_segments")
        ]
        return sorted(tuple(line[:, 0].round(6)) for line in found[0] if line.size)

    costs = costs_of(0, 0.03)
    assert ends(costs) == sorted(zip(costs["step_ratio_low"].round(6), costs["step_ratio_high"].round(6), strict=True))
    assert ends(costs_of(0)) == []


def test_what_loses_much_stands_at_the_edge_with_its_figure():
    costs = costs_of(0)
    costs.loc[costs["run"] == "fkd", "gain"] = -30.0
    axes = plots_cost.cost(costs).axes[0]
    assert axes.get_ylim()[0] > -2 * costs["gain"].max()
    assert "fkd \u221230.0" in [text.get_text() for text in axes.texts]


def test_the_frontier_is_what_no_other_beats():
    points = np.array([[1.2, 1.0], [1.3, 1.0], [1.4, 2.0], [1.4, 1.5], [1.1, -0.5], [2.0, 1.9]])
    assert plots_cost.frontier(points).tolist() == [True, False, True, False, False, False]
    assert not plots_cost.frontier(points * [1, -1])[[0, 2]].any(), "a loss is no gain"


def test_marker_areas_grow_with_memory():
    areas = plots_cost.marker_areas(pd.Series([0.0, 50.0, 100.0]))
    assert areas.tolist() == [plots_cost.SMALLEST, (plots_cost.SMALLEST + plots_cost.LARGEST) / 2, plots_cost.LARGEST]
    for alike in ([11.7, 13.0], [0.0], [-5.0, 0.0]):
        assert set(plots_cost.marker_areas(pd.Series(alike))) == {plots_cost.SMALLEST}
