"""The stage `cost`: each run is measured, and memory is what a step holds at one time."""

from __future__ import annotations

import pytest
import torch
from support.worlds import runs

from benchmark import cost
from benchmark.experiment.settings import SettingsError
from benchmark.match import match


def test_peak_is_the_most_that_is_held_at_once(capfd):
    mb = 2**18  # float32 numbers in a megabyte

    def step() -> None:
        first = torch.empty(8 * mb)
        del first
        second = torch.empty(5 * mb)
        third = torch.empty(6 * mb)
        del second, third

    assert cost.peak_memory(step) == pytest.approx(11, abs=0.5), "not the sum, 19, nor the largest, 8"
    assert capfd.readouterr().err == "", "the profiler says nothing"


@pytest.mark.slow
def test_every_run_is_measured(taught_world):
    chosen = {
        "student": {},
        "inherit": {"inherit": "head+neck"},
        "fgd": {"method": "fgd", "inherit": "head+neck"},
    }
    params = taught_world.settle(runs(2, **chosen))
    match(params)
    table = cost.measure(params, turns=2).set_index("run")
    assert set(table.index) == set(chosen)
    assert table.loc["student", "step_ratio"] == 1
    assert table.loc["student", "extra_mb"] == 0
    assert (table["step_ms"] > 0).all()
    assert (table["step_ratio_low"] <= table["step_ratio"]).all()
    assert (table["step_ratio"] <= table["step_ratio_high"]).all()
    assert (table["step_ratio_low"] < table["step_ratio_high"]).any()
    assert table.loc["fgd", "extra_parameters"] > 0
    assert table.loc["inherit", "extra_parameters"] == 0
    assert table.loc["fgd", "extra_mb"] > table.loc["inherit", "extra_mb"] > 0, (
        "the teacher's weights, then its features"
    )


@pytest.mark.slow
def test_the_student_alone_is_the_measure_even_where_no_run_is_it(taught_world):
    params = taught_world.settle(runs(2, only={"inherit": "head+neck"}))
    match(params)
    table = cost.measure(params, turns=1).set_index("run")
    assert list(table.index) == ["only"]
    assert table.loc["only", "extra_mb"] > 0


@pytest.mark.slow
def test_what_several_processes_train_is_measured_in_one(taught_world):
    """With processes that load data, as COCO's configs have them."""

    def together(content: dict) -> None:
        runs(2, workers=1, student={})(content)
        content["pairs"]["gfl"]["student"]["gpus"] = 2

    params = taught_world.settle(together)
    match(params)
    assert list(cost.measure(params, turns=1)["run"]) == ["student"]


def test_a_pair_without_runs_is_an_error(taught_world):
    def two_pairs(content: dict) -> None:
        content["pairs"]["other"] = content["pairs"]["gfl"]
        content["runs"] = {"only": {"pair": "other"}}

    with pytest.raises(SettingsError, match="has no run; add one"):
        cost.measure(taught_world.settle(two_pairs), turns=1)
