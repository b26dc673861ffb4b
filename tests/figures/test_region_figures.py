"""What the figures of key regions owe their readers, on the committed tables of detectors trained on COCO."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from benchmark import region_figures
from benchmark.experiment.workspace import ROOT


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return region_figures.load(ROOT / "experiments" / "coco-regions" / "results" / "key_regions")[0]


def test_the_axis_starts_at_one(table):
    axes = region_figures.accuracy(table).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["one", "1", "2", "5", "10", "20", "50", "100"]
    # at the percentage of which most boxes keep one, of every detector
    assert axes.get_xticks()[0] == 0.5
    assert table.loc[table["percent"] == 0.5, "below_one"].min() >= region_figures.ONE
    assert table.loc[table["percent"] == 1, "below_one"].min() < region_figures.ONE


def test_smaller_percentages_than_one_are_not_drawn(table):
    smaller = table[table["percent"] == 0.5].assign(percent=0.1, below_one=1.0)
    shown, labels = region_figures.from_one(pd.concat([table, smaller]))
    assert shown["percent"].min() == 0.5
    assert list(labels.values()).count("one") == 1


def test_one_detector_has_bands(table):
    name = region_figures.highest(table)
    assert name == "nanodet-plus-m"
    for axes in region_figures.accuracy(table).axes:
        bands = [one for one in axes.collections if isinstance(one, PolyCollection)]
        # of the best and of random ones
        assert [to_hex(one.get_facecolor()[0]) for one in bands] == [region_figures.looks(table)[name][0]] * 2
