"""Every method on every pair that it fits, the others with their reason."""

from __future__ import annotations

import pandas as pd
import pytest
from support.worlds import runs

from benchmark.experiment.settings import load
from benchmark.methods import DETECTORS, refusal, table
from benchmark.training import combinations as stage
from pgd.methods import METHODS


@pytest.mark.slow
def test_the_page_of_methods_is_that_of_the_registry():
    from benchmark.methods import TABLE

    assert TABLE.read_text() == table(), "run `python -m benchmark.methods`"


@pytest.mark.slow
def test_combinations_are_complete():
    """A row or a run for each method and each pair of the smoke experiment, which has all detectors."""
    from benchmark.smoke import PROFILE

    params = load(PROFILE.params)
    chosen, refused = stage.combinations(params)
    found = {(run.method, run.pair) for run in chosen.values()} | {(row["method"], row["pair"]) for row in refused}
    assert found == {(method, pair) for method in METHODS.module_dict for pair in params.pairs}
    assert len(found) == len(chosen) + len(refused)
    assert all(len(row["outcome"].split()) > 8 for row in refused), "a sentence"


@pytest.mark.slow
def test_one_each_is_every_method_and_every_pair_that_has_one():
    """What `make smoke` trains: no method is left out, and more than one detector has its share."""
    from benchmark.smoke import PROFILE

    chosen, _ = stage.combinations(load(PROFILE.params))
    few = stage.one_each(chosen)
    assert [run.method for run in few.values()] == sorted(METHODS.module_dict)
    assert few.items() <= chosen.items()
    assert {run.pair for run in few.values()} == {run.pair for run in chosen.values()}


def test_refusals():
    assert refusal("pgd", "fcos") is None
    assert set(DETECTORS) >= {"fcos", "gfl"}
    assert "distribution" in refusal("ld", "fcos")


@pytest.mark.long
def test_trains_what_fits(taught_world, monkeypatch):
    """Two methods on one pair, with the files of the pipeline left as they were."""
    params = taught_world.settle(runs(2, student={}))
    before = {path: path.read_bytes() for path in (taught_world.folder / "work").rglob("*.json")}
    chosen, refused = stage.combinations(params)
    few = {name: run for name, run in chosen.items() if run.method in ("fitnet", "pgd")}
    monkeypatch.setattr(stage, "combinations", lambda _: (few, refused))
    found = stage.train_all(params)
    assert list(found["method"]) == ["fitnet", "pgd"]
    assert set(found["outcome"]) == {"trained"}
    assert pd.read_csv("results/combinations.csv").equals(found)
    own = {path: path.read_bytes() for path in before}
    assert own == before
