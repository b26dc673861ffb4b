"""Sentences and table of the key-region analysis, on made-up figures."""

from __future__ import annotations

import pandas as pd

from benchmark.evidence.region_tables import cells, shares_sentence


def made_up() -> pd.DataFrame:
    """Two detectors, three percentages; 30 AP as a whole, and the best 10% give 29.8 for one and 20 for the other."""
    rows = []
    for name, best in (("a", {1: 29.0, 10: 29.8, 100: 30.0}), ("b", {1: 10.0, 10: 20.0, 100: 30.0})):
        for percent, ap in best.items():
            common = {"name": name, "mode": "predictions", "percent": float(percent), "kept_per_box": percent / 4}
            common |= {"kept": percent * 10, "in_box": 2000.0, "below_one": float(percent < 5)}
            rows.append({**common, "selection": "top", "draw": None, "AP": ap})
            rows += [{**common, "selection": "random", "draw": d, "AP": ap / 2 + d} for d in (0, 1)]
    return pd.DataFrame(rows)


def test_the_smallest_share_that_is_enough():
    first, second = shares_sentence(made_up()).split("\n\n")
    assert first == (
        "**a**: the best 10% of each box's predictions (2.5 on average) give 29.8 COCO AP, all give 30.0; as many at "
        "random 15.4. They are 5.0% of what lies in boxes."
    )
    assert second.startswith("**b**: the best 100% of each box's predictions")


def test_headline_says_only_what_was_measured():
    table = made_up()
    table.loc[table["percent"] == 1, "AP"] = 29.9
    assert shares_sentence(table).startswith("**a**: the one best prediction of each box gives 29.9 COCO AP")
    assert "random" not in shares_sentence(table[table["selection"] == "top"])
    unfinished = table[(table["name"] != "a") | (table["percent"] < 100)]
    assert shares_sentence(unfinished).startswith("**b**")
    assert shares_sentence(table.assign(AP=float("nan"))) == ""


def test_cells_are_means_over_draws():
    table = cells(made_up())
    assert list(table.columns) == ["Detector", "Mode", "Kept", "1%", "10%", "100%"]
    assert len(table) == 4
    assert table.iloc[1].tolist() == ["a", "Predictions dropped", "random", "15.0", "15.4", "15.5"]
