"""Runs that differ in nothing but their length, and the figure of what that does to gains."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmark.evidence.lengths import lengths, shortened
from benchmark.evidence.record import METRICS
from benchmark.evidence.records import FOOTING, aggregate
from benchmark.figures.schedule import schedule, with_share

#: method, settings, iterations and AP by run
RUNS = {
    "inherit": ("none", {}, 3000, 60.0),
    "inherit-750": ("none", {}, 750, 50.0),
    "pgd": ("pgd", {"alpha": 0.5}, 3000, 61.0),
    "pgd-750": ("pgd", {"alpha": 0.5}, 750, 53.0),
    "pgd-1500": ("pgd", {"alpha": 0.5}, 1500, 57.0),
    "hard": ("pgd", {"alpha": 5.0}, 750, 40.0),
    "ld": ("ld", {"weight": 1.0}, 3000, 60.5),
}


def records(runs: dict = RUNS) -> pd.DataFrame:
    """Made-up records of one pair, two seeds each."""
    common = {**dict.fromkeys(FOOTING, "same"), "role": "student", "metric": "coco", "train_seconds": 60.0}
    common |= {"method_title": "x", "resumed": False}
    common |= dict.fromkeys(("peak_memory_mb", "parameters", "extra_parameters", *METRICS["coco"]), 1.0)
    places = {"none": "none", "pgd": "key regions", "ld": "predictions"}
    rows = [
        {"run": run, "seed": seed, "method": method, "method_place": places[method], "AP": ap + seed}
        | {"iterations": iterations, **{f"method.{key}": value for key, value in settings.items()}}
        for run, (method, settings, iterations, ap) in runs.items()
        for seed in (0, 1)
    ]
    return pd.DataFrame([{**common, **row} for row in rows])


def test_runs_of_one_line_differ_in_their_length_alone():
    found = lengths(records())
    lines = {line: rows["run"].tolist() for line, rows in found.groupby("line")}
    assert lines == {"inherit": ["inherit-750", "inherit"], "pgd": ["pgd-750", "pgd-1500", "pgd"]}
    assert shortened(records()) == {"inherit-750", "pgd-750", "pgd-1500"}


def test_one_length_makes_no_line():
    assert lengths(records({"inherit": RUNS["inherit"], "hard": RUNS["hard"]})).empty


def test_gains_are_over_a_baseline_of_the_same_length():
    table = aggregate(records()).set_index("run")
    assert table.loc["pgd-750", "baseline"] == "inherit-750"
    assert table.loc["pgd-750", "gain"] == pytest.approx(3.0)
    assert table.loc["pgd", "gain"] == pytest.approx(1.0)
    assert pd.isna(table.loc["pgd-1500", "baseline"]), "nobody without a method trained as long"


def test_the_figure_shows_ap_and_gain_by_length():
    found = records()
    figure = schedule(found, aggregate(found))
    left, right = figure.axes
    assert [line.get_xdata().tolist() for line in left.lines] == [[750, 3000], [750, 1500, 3000]]
    # a gain only where there is something to compare with, and zero as a line
    gains = [list(line.get_ydata()) for line in right.lines]
    assert gains[0] == pytest.approx([3.0, 1.0])
    assert [text.get_text() for text in left.get_xticklabels()] == ["750", "1,500", "3,000"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["inherit", "pgd"]


def test_with_a_teacher_a_gain_is_shown_as_a_share_of_what_is_left_to_it():
    """3 of 20 and 1 of 10 AP."""
    found = pd.concat([records(), records({"large": ("none", {}, 9000, 70.0)}).assign(role="teacher")])
    table = with_share(aggregate(found)).set_index("run")
    assert table.loc[["pgd-750", "pgd"], "share"].tolist() == pytest.approx([15.0, 10.0])
    assert table.loc[["inherit", "large", "pgd-1500"], "share"].isna().all()
    *_, share = schedule(found, aggregate(found)).axes
    assert list(share.lines[0].get_ydata()) == pytest.approx([15.0, 10.0])


def test_no_share_of_a_gap_that_is_none():
    found = pd.concat([records(), records({"worse": ("none", {}, 9000, 50.0)}).assign(role="teacher")])
    table = with_share(aggregate(found)).set_index("run")
    assert table["share"].isna().all()
