"""Tables and figures of distances and gradients, from hand-made curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmark.evidence.record import ReportError
from benchmark.figures import dynamics as plots_dynamics
from benchmark.figures.dynamics import DISTANCES, GRADIENTS
from benchmark.figures.looks import COLOURS
from benchmark.training.result import REGIONS

#: where the method compares, and the shares of its gradient at both points
RUNS = {
    "inherit": ("none", None),
    "pgd": ("key regions", ([0.2, 0.3, 0.5], [0.4, 0.2, 0.4])),
    "fgd": ("neck", ([0.1, 0.1, 0.8], [0.1, 0.3, 0.6])),
    "ld": ("predictions", ([0.5, 0.5, 0.0], [0.5, 0.1, 0.4])),
}
POSITIONS = {"key": 0.05, "box": 0.15, "background": 0.8}


def records(seeds: int = 1) -> pd.DataFrame:
    rows = [{"key": "teacher-gfl", "run": "teacher-gfl", "seed": 0, "method": "none", "role": "teacher"}]
    rows += [
        {"key": f"{run}-{seed}", "run": run, "seed": seed, "method": run, "method_place": place, "role": "student"}
        for run, (place, _) in RUNS.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows).assign(pair="gfl", inherit="head+neck", method_title="any")


def write_curves(folder, seeds: int = 1) -> None:
    """Distances start at 2 and end at 2 / (1 + the run's number) in the first seed, at four times that in the next."""
    (folder / "curves").mkdir()
    for k, (run, (_, gradients)) in enumerate(RUNS.items()):
        for seed in range(seeds):
            rows = [{"step": 0, **dict.fromkeys(DISTANCES, 2.0)}, {"step": 10, "loss": 1.0}, {"step": 20, "AP": 3.0}]
            rows.append({"step": 20, **dict.fromkeys(DISTANCES, 2.0 * 4**seed / (1 + k))})
            for row, shares in zip((rows[0], rows[3]), gradients or (), strict=False):
                row |= dict(zip(GRADIENTS, shares, strict=True))
            pd.DataFrame(rows).to_csv(folder / "curves" / f"{run}-{seed}.csv", index=False)


@pytest.fixture
def points(tmp_path) -> pd.DataFrame:
    write_curves(tmp_path)
    return plots_dynamics.load_dynamics(tmp_path, records())


def test_loads_the_points_that_were_measured(points):
    assert points.groupby("run", sort=False)["step"].apply(list).to_dict() == {run: [0, 20] for run in RUNS}
    assert points.loc[points["run"] == "inherit", GRADIENTS].isna().all().all()


def test_runs_without_a_teacher_are_left_out(tmp_path):
    write_curves(tmp_path)
    pd.DataFrame({"step": [10], "loss": [1.0]}).to_csv(tmp_path / "curves" / "inherit-0.csv", index=False)
    assert list(plots_dynamics.load_dynamics(tmp_path, records())["run"].unique()) == ["pgd", "fgd", "ld"]


def test_old_and_missing_curves_are_reported(tmp_path):
    (tmp_path / "curves").mkdir()
    with pytest.raises(ReportError, match=r"inherit-0\.csv is missing"):
        plots_dynamics.load_dynamics(tmp_path, records())
    for run in RUNS:
        pd.DataFrame({"step": [10], "loss": [1.0]}).to_csv(tmp_path / "curves" / f"{run}-0.csv", index=False)
    with pytest.raises(ReportError, match="no curve holds distances"):
        plots_dynamics.load_dynamics(tmp_path, records())


def test_shrinkage_is_the_geometric_mean_over_seeds(tmp_path):
    write_curves(tmp_path, seeds=2)
    table = plots_dynamics.shrinkage(plots_dynamics.load_dynamics(tmp_path, records(2)))
    assert len(table) == len(RUNS) * len(DISTANCES)
    for k, run in enumerate(RUNS):
        # by sqrt(1 x 4) more than the first seed alone
        assert table.loc[table["run"] == run, "ratio"].tolist() == pytest.approx([2 / (1 + k)] * len(DISTANCES))


def test_equal_features_have_no_ratio(points):
    points.loc[points["step"] == 0, "distance.neck.key"] = 0.0
    table = plots_dynamics.shrinkage(points)
    assert table[(table["features"] == "neck") & (table["region"] == "key")].empty
    assert np.isfinite(table["ratio"]).all()


def test_shares_are_means_over_the_training(points):
    shares = plots_dynamics.gradient_shares(points)
    assert list(shares.index) == ["pgd", "fgd", "ld"]
    assert shares.loc["pgd"].tolist() == pytest.approx([0.3, 0.25, 0.45, 0.2, 0.4])
    sentence = plots_dynamics.gradient_sentence(points, POSITIONS)
    assert "**pgd** puts 30%" in sentence
    assert "10% to 50% (median 30%)" in sentence
    assert "5.0% of all" in sentence
    assert "positions are" not in plots_dynamics.gradient_sentence(points, None)
    assert (
        plots_dynamics.gradient_sentence(points[points["run"] == "inherit"], None)
        == "No run of this pair has a method."
    )


def test_points_without_a_gradient_have_no_shares(points):
    whole = plots_dynamics.gradient_shares(points)
    points.loc[(points["run"] == "pgd") & (points["step"] == 0), GRADIENTS] = 0.0
    shares = plots_dynamics.gradient_shares(points)
    assert shares.loc["pgd", list(REGIONS)].sum() == pytest.approx(1)
    assert shares.loc["pgd", "low"] > 0
    assert shares.loc["fgd"].equals(whole.loc["fgd"])


def test_places_that_no_run_has_get_no_panel(points):
    points[[name for name in DISTANCES if "tower" in name]] = np.nan
    titles = [axes.get_title() for axes in plots_dynamics.distances(points).axes]
    assert [title for title in titles if title] == ["neck"]
    assert len(plots_dynamics.shrunk(points).axes) == 1


@pytest.mark.slow
def test_every_run_has_a_line_in_every_panel(points):
    figure = plots_dynamics.distances(points)
    assert len(figure.axes) == 9
    for axes in figure.axes:
        ends = [line.get_ydata()[-1] for line in axes.lines]
        assert ends == pytest.approx([2 / (1 + k) for k in range(len(RUNS))])
        assert axes.lines[1].get_color() == COLOURS["key regions"]
        assert axes.get_yscale() == "log"


def test_ratios_are_sorted_and_drawn(points):
    first = plots_dynamics.shrunk(points).axes[0]
    assert [text.get_text() for text in first.get_yticklabels()] == ["ld", "fgd", "pgd", "inherit"]
    dots = first.collections[1].get_offsets()
    assert dots[:, 0].tolist() == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1])
    assert dots[:, 1].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_bars_are_shares(points, positions):
    axes = plots_dynamics.gradients(points, positions).axes[0]
    expected = [[50, 30, 20], [30, 25, 45], [10, 20, 70]]
    names = ["ld", "pgd", "fgd"]
    if positions:
        expected, names = [[5, 15, 80], *expected], ["all positions", *names]
        assert [text.get_text() for text in axes.texts] == ["\u00d7 10.0", "\u00d7 6.0", "\u00d7 2.0", "key density"]
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    widths = np.array([patch.get_width() for patch in axes.patches]).reshape(-1, 3)
    assert widths == pytest.approx(np.array(expected))
