"""What figures owe their readers: labels that do not cover each other, runs that can be told apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from benchmark.figures import cost as plots_cost
from benchmark.figures import plots
from pgd.methods.base import PLACES

METHODS = {
    **dict.fromkeys(("fitnet", "fgfi", "defeat", "frs", "fkd", "gid", "fgd", "mgd", "pkd", "icd"), "neck"),
    **dict.fromkeys(("ld", "cwd", "bckd", "dist"), "predictions"),
    "crosskd": "towers",
    **dict.fromkeys(("pgd", "pgd_released"), "key regions"),
}


def test_every_place_has_a_colour_of_its_own():
    assert set(PLACES) < set(plots.COLOURS)
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
    assert plots.paint({"method_place": "a place of one's own"}) == plots.COLOURS["other"]


def test_a_legend_names_the_places_that_there_are():
    rows = [{"method_place": place} for place in ("key regions", "none", "key regions", "mine")]
    assert list(plots.legend_of(rows)) == ["no method", "key regions (PGD)", "other"]


@pytest.mark.parametrize("seed", range(5))
def test_labels_spread_out(seed):
    values = np.random.default_rng(seed).normal(0, 1, 12)
    places = plots.spread_out(values, 0.2, -5, 5)
    assert np.array_equal(np.argsort(places), np.argsort(values))
    assert np.diff(np.sort(places)).min() > 0.2 - 1e-9
    assert plots.spread_out(values, 1e-9, -5, 5) == pytest.approx(values, abs=1e-6), "free ones stay"
    crowded = plots.spread_out(values, 0.2, 0, 3)
    assert crowded.min() > -1e-9
    assert crowded.max() < 3 + 1e-9


def test_two_equal_labels_share_the_shift():
    assert plots.spread_out([1.0, 1.0, 5.0], 1.0, 0, 9) == pytest.approx([0.5, 1.5, 5.0])
    assert plots.spread_out([9.0, 9.0], 1.0, 0, 9) == pytest.approx([8.0, 9.0])


def curves_of(methods: list[str]) -> pd.DataFrame:
    rows = [
        {
            "run": method,
            "seed": seed,
            "method": method,
            "pair": "gfl",
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


def test_few_curves_are_all_told_apart():
    looks = plots.looks(curves_of(["none", "fitnet", "fgd", "ld", "pgd"]))
    assert len({(look["color"], str(look["linestyle"])) for look in looks.values()}) == 5
    assert plots.PALE not in {look["color"] for look in looks.values()}


def test_of_many_curves_pgd_and_the_best_stand_out():
    methods = ["none", *METHODS]
    looks = plots.looks(curves_of(methods))
    shown = {run for run, look in looks.items() if look["color"] != plots.PALE}
    # AP rises along the list, so that the last ones that are not PGD are the best
    assert shown == {"none", "pgd", "pgd_released", *[m for m in methods if not m.startswith("pgd")][-plots.BEST :]}


def test_of_many_runs_of_pgd_the_first_and_the_best_stand_out():
    runs = [f"pgd{k}" for k in range(12)]
    curves = curves_of(["none", *runs])
    curves["method_place"] = curves["method"].map({"none": "none"}).fillna("key regions")
    looks = plots.looks(curves)
    shown = [run for run, look in looks.items() if look["color"] != plots.PALE]
    assert shown == ["none", "pgd0", *runs[-plots.BEST :]]
    assert len({str(looks[run]["linestyle"]) for run in shown[1:]}) == len(shown) - 1


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_costs_cover_neither_each_other_nor_a_dot(seed):
    rng = np.random.default_rng(seed)
    count = len(METHODS)
    costs = pd.DataFrame(
        {
            "run": list(METHODS),
            "method_place": METHODS.values(),
            "step_ratio": 1.3 + np.abs(rng.normal(0, 0.15, count)),
            "extra_mb": rng.exponential(50, count),
            "gain": rng.normal(1.3, 0.5, count),
        }
    )
    figure = plots_cost.cost(costs)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = np.array([text.get_window_extent(renderer).extents for text in axes.texts])
    assert sorted(text.get_text() for text in axes.texts) == sorted(METHODS)
    covered = plots_cost.shared(boxes, boxes)
    assert (covered - np.diag(np.diag(covered))).max() == 0
    assert (boxes[:, :2] >= axes.bbox.min).all()
    assert (boxes[:, 2:] <= axes.bbox.max).all()
    centres = axes.transData.transform(costs[["step_ratio", "gain"]])
    assert plots_cost.shared(boxes, np.concatenate((centres - 2, centres + 2), axis=1)).max() == 0


def test_marker_areas_grow_with_memory():
    areas = plots_cost.marker_areas(pd.Series([-5.0, 0.0, 50.0, 100.0]), 100.0)
    assert areas[0] == areas[1] == plots_cost.SMALLEST
    assert areas[3] == plots_cost.LARGEST
    assert areas[2] == pytest.approx((plots_cost.SMALLEST + plots_cost.LARGEST) / 2)
    assert plots_cost.marker_areas(pd.Series([0.0]), 0.0).tolist() == [plots_cost.SMALLEST]
