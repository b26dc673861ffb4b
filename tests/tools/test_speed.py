"""The measurement of speed: how ratios are made of times and a record of ratios; never how long anything takes."""

from __future__ import annotations

import gc
import json
import math
import sys
from itertools import pairwise

import numpy as np
import pytest
from support.detectors import QUIET

from tools import speed
from tools.timed import growth, loading, machine, parts, side, switches, targets, turns
from tools.timed import steps as timed_steps
from tools.timed.extent import FULL, QUICK, Extent

pytestmark = QUIET


def spread_of(value: float) -> dict:
    return {"median": value, "lower": value - 0.1, "upper": value + 0.1, "least": value, "turns": 3}


def is_spread(found: dict) -> bool:
    return 0 <= found["least"] <= found["lower"] <= found["median"] <= found["upper"] and found["turns"] >= 2


# ------------------------------------------------------------------------------------------------ turns and ratios


def test_every_variant_runs_once_a_turn_and_warm_up_is_not_counted():
    seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    times = turns.in_turns({name: own.append for name, own in seen.items()}, 4, "test", warm_up=2)
    assert all(own == [-2, -1, 0, 1, 2, 3] for own in seen.values())
    assert {name: len(ms) for name, ms in times.items()} == {"a": 4, "b": 4, "c": 4}
    assert all(ms >= 0 for own in times.values() for ms in own)


@pytest.mark.slow
def test_the_order_is_another_one_each_turn():
    called: list[str] = []
    turns.in_turns({name: lambda turn, name=name: called.append(name) for name in "abcd"}, 8, "test", warm_up=0)
    orders = {tuple(called[i : i + 4]) for i in range(0, 32, 4)}
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len(orders) > 2


def test_a_variant_that_fails_does_not_leave_the_collector_frozen():
    def fail(turn: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        turns.in_turns({"a": fail}, 2, "test")
    assert gc.get_freeze_count() == 0


def test_ratios_are_made_turn_by_turn():
    """The median of ratios, which is not the ratio of medians."""
    above, one, two = [3.0, 8.0, 10.0], [1.0, 1.0, 2.0], [1.0, 3.0, 0.5]
    assert turns.over(above, one)["median"] == 5.0  # of 3, 8, 5
    assert turns.over(above, one, two)["median"] == 2.0  # of 1.5, 2, 4
    assert turns.over(above, one, two)["turns"] == 3
    faster = turns.times_faster({"base": [4.0, 6.0], "quick": [2.0, 2.0], "slow": [8.0, 12.0]}, "base")
    assert faster.keys() == {"quick", "slow"}
    assert faster["quick"]["median"] == 2.5
    assert faster["slow"]["median"] == 0.5


def test_what_a_method_costs():
    times = {"student": [10.0, 20.0], "teacher": [5.0, 10.0], "pgd": [18.0, 36.0], "pgd, stored": [11.0, 24.0]}
    found = timed_steps.ratios(times, ["pgd"])
    assert found["live"]["pgd"]["median"] == pytest.approx(1.2)
    assert found["live / student"]["pgd"]["median"] == pytest.approx(1.8)
    assert found["stored / student"]["pgd"]["median"] == pytest.approx(1.15)


def test_share_of_loading():
    times = {"literal": [4.0, 4.0], "here": [1.0, 2.0], "here, first sight": [3.0, 4.0], "student": [20.0, 40.0]}
    found = loading.shares(times, known=0.75)
    assert {name: ratio["median"] for name, ratio in found.items()} == {
        "here": 0.05,
        "here, first sight": 0.125,
        "over a training": 0.0688,  # of 1.5 / 20 and 2.5 / 40
        "literal": 0.15,
    }


@pytest.mark.parametrize(
    ("images", "batch", "steps", "known"), [(2000, 8, 400, 0.375), (2001, 8, 400, 0.3725), (800, 8, 50, 0.0)]
)
def test_how_many_batches_a_training_has_seen_before(images, batch, steps, known):
    assert loading.known_share(images, batch, steps) == pytest.approx(known)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0])
def test_exponent_of_what_grows_beside_what_does_not(power):
    values = (1, 3, 10, 30, 100, 300, 1000)
    costs = [5 + 0.5 * n**power for n in values]
    assert growth.exponent(values, costs) == pytest.approx(power, abs=0.02)
    assert growth.steepest(values, costs) <= power
    said = growth.said_of(values, [[cost, 2 * cost, 3 * cost] for cost in costs])
    assert said["turns"]["median"] == said["exponent"] == pytest.approx(power, abs=0.02)


def test_what_hardly_grows_has_no_exponent():
    said = growth.said_of((1, 10, 100), [[5.0, 6.0], [5.0, 6.0], [5.1, 6.1]])
    assert said["exponent"] is None
    assert said["steepest"] == pytest.approx(0.01, abs=0.005)
    assert "turns" not in said


def test_a_peak_of_memory_that_belongs_to_something_else_first_is_no_power():
    values = (1, 10, 100, 1000)
    assert growth.steepest(values, [max(3.0, 0.02 * n) for n in values]) <= 1
    assert growth.steepest(values, [max(3.0, 0.0001 * n**2) for n in values]) > targets.EXPONENT


# --------------------------------------------------------------------------------------------------------- targets


def record() -> dict:
    """What targets are read from, all of it just met."""
    steps = {
        "live": {"pgd": spread_of(1.05), "fgd": spread_of(1.15), "crosskd": spread_of(1.15)},
        "stored / student": {"pgd": spread_of(1.1)},
        "student, literal / student": spread_of(1.5),
    }
    grown = {"growth": {"exponent": 1.0, "steepest": 0.6, "turns": spread_of(1.0)}}
    grown |= {"growth of memory": {"exponent": 1.3, "steepest": 1.0}}
    return {
        "steps": {"gfl": steps},
        "side by side": {"detector": "gfl", side.ALL_WORTH: spread_of(1.5)},
        "loader": {
            "steps of a training": 400,
            "share of the student's step": {"here": spread_of(0.05), "over a training": spread_of(0.05)},
        },
        "evaluation": {"pycocotools / here": spread_of(50.0), "largest difference": 0.0},
        "start": {"ms": {"training, first step done": spread_of(5000.0)}},
        "growth": {"objects": {"maps": grown, "step": grown}},
    }


def test_all_targets_have_a_line():
    rows = targets.targets(record())
    assert all(row["met"] for row in rows)
    assert [row["target"] for row in rows] == [
        *("at most 1.05", "at most 1.15", "at most 1.15", "at most 1.1", "at least 1.5", "at least 1.5"),
        *("at most 0.05", "at most 0.05", "at least 50", "at most 0", "at most 5000"),
        *["at most 1.2"] * 4,
    ]
    assert rows[0]["lower"] < rows[0]["measured"] < rows[0]["upper"]


def test_a_target_that_is_missed_says_so():
    content = record()
    content["steps"]["gfl"]["live"]["fgd"] = spread_of(1.151)
    content["evaluation"]["pycocotools / here"] = spread_of(49.9)
    content["evaluation"]["largest difference"] = 1e-9
    content["growth"]["objects"]["maps"] = {
        "growth": {"exponent": 2.0, "steepest": 1.5},
        "growth of memory": {"exponent": None, "steepest": 0.1},
    }
    rows = targets.targets(content)
    missed = [row["what"] for row in rows if not row["met"]]
    assert len(missed) == 4
    assert "fgd" in missed[0]
    assert "pycocotools" in missed[1]
    assert "difference" in missed[2]
    assert "time grows" in missed[3]
    text = targets.printed(rows)
    assert text.count("  no") == 4
    assert text.count("  yes") == len(rows) - 4
    assert "1.151" in text
    on = {"cpu": "a CPU", "cores": 2, "torch": "2.0", "git_revision": "abc"}
    page = targets.markdown(content | {"targets": rows, "machine": on, "turns": 3})
    assert page.count("| no |") == 4
    assert "a CPU, 2 cores, torch 2.0, commit abc; medians of up to 3 turns" in page


def test_a_machine_of_one_core_has_no_trainings_side_by_side():
    content = record() | {"side by side": {"why not": "this process may use 1 core"}}
    assert len(targets.targets(content)) == len(targets.targets(record())) - 1


def test_what_does_not_grow_meets_its_target():
    content = record()
    content["growth"]["objects"]["step"]["growth"] = {"exponent": None, "steepest": 0.0}
    assert all(row["met"] for row in targets.targets(content))


# ------------------------------------------------------------------------------------------------ machine, extent


def test_a_machine_that_was_busy_is_named():
    assert machine.not_idle({"load_before": 0.3, "cores": 2}) is None
    assert machine.not_idle({"load_before": None, "cores": 2}) is None
    assert "load 1.9 on 2 cores" in machine.not_idle({"load_before": 1.9, "cores": 2})


def test_the_machine_is_in_the_record(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = machine.measured_on()
    assert {"cpu", "cores", "threads", "torch", "mmdet", "python", "git_revision", "load_before"} <= found.keys()
    assert found["git_revision"] == (machine.git("rev-parse", "--short=12", "HEAD") or None), "of this checkout"
    json.dumps(found)


def test_extents(tiny):
    assert FULL.share(0.3) == 6
    assert QUICK.share(0.1) == 2, "there is no spread of one"
    for extent in (FULL, QUICK, tiny):
        assert set(extent.growth) == set(extent.usual) == set(FULL.growth)
        assert all(len(values) >= growth.TAIL for values in extent.growth.values())
        assert all(a < b for values in extent.growth.values() for a, b in pairwise(values))
    assert {1, 300} <= set(FULL.growth["objects"])
    assert set(targets.LIVE) | set(targets.STORED) <= set(FULL.methods) & set(QUICK.methods)


def test_turns_are_two_at_least(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed", "--turns", "1"])
    with pytest.raises(SystemExit):
        speed.main()
    assert "1 is not from 2" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- the record


def check(content: dict, extent: Extent) -> None:
    """A record has every part, and figures that can be."""
    assert content["complete"]
    for detector in extent.detectors:
        found = content["steps"][detector]
        assert found["stored features equal the live ones"]
        assert not found["not finite"]
        own = {name for method in extent.methods for name in (method, f"{method}, stored")}
        fixed = {"student, literal", "student", "teacher, literal", "teacher", "PGD's maps"}
        assert set(found["ms"]) == own | fixed
        for key in ("live", "live / student", "stored / student"):
            assert set(found[key]) == set(extent.methods)
            assert all(map(is_spread, found[key].values()))
    found = content["switches"]
    assert set(switches.ALONE) | {switches.BF16, switches.OURS} == set(found["times faster than literal"])
    assert max(loss for name, loss in found["first loss"].items() if name != switches.BF16) < 1e-5
    assert found["first loss"][switches.BF16] < 0.1
    assert "why not" in content["compiled"]
    assert is_spread(content["side by side"][side.WORTH])
    assert is_spread(content["side by side"][side.ALL_WORTH])
    for quantity, values in extent.growth.items():
        for own in content["growth"][quantity].values():
            assert list(own["ms"]) == list(own["mb"]) == [str(value) for value in values]
            assert all(mb > 0 for mb in own["mb"].values())
            assert ("growth" in own) == (quantity in growth.POWERS)
    assert {"literal", "here", "here, first sight", "student"} == set(content["loader"]["ms"])
    assert set(content["start"]["ms"]) == {parts.IMPORTS, parts.FIRST, parts.HELP}
    assert is_spread(content["deformable"]["torchvision / here"])
    assert all(math.isfinite(row["measured"]) for row in content["targets"])
    assert content["machine"]["threads"] == 1


@pytest.mark.long
def test_a_quick_measurement_ends_with_a_record_a_figure_and_a_table(tiny, echo, tiny_world, monkeypatch, capsys):
    monkeypatch.setattr(speed, "QUICK", tiny)
    monkeypatch.setattr(sys, "argv", ["speed", "--quick", "--out", "out"])
    # the processes are tested by themselves
    monkeypatch.setattr(side, "serving", lambda literal: echo)
    monkeypatch.setattr(parts, "BEGIN", "pass")
    monkeypatch.setattr(parts, "STEP", "import sys; assert sys.stdin.read()")
    monkeypatch.setattr(side, "cores", lambda: 2)
    speed.main()
    content = json.loads((tiny_world.folder / "out" / "speed.json").read_text())
    check(content, tiny)
    assert "| yes |" in (tiny_world.folder / "out" / "speed.md").read_text()
    assert (tiny_world.folder / "out" / "speed.png").stat().st_size > 10_000
    assert all(row["what"] in capsys.readouterr().out for row in content["targets"][:1])


def test_the_figure_can_be_drawn_of_a_record_without_what_this_machine_lacks():
    from tools.timed.figure import draw

    ratio, by_value = spread_of(1.2), {"1": 1.0, "10": 2.0, "100": 3.0}
    methods = {"pgd": ratio, "fgd": ratio}
    own = {"ms": {n: spread_of(v) for n, v in by_value.items()}, "mb": by_value}
    content = {
        "steps": {
            "gfl": {"live": methods, "stored / student": methods, "place": {"pgd": "key regions", "fgd": "neck"}}
        },
        "switches": {
            "times faster than literal": {"channels_last": ratio},
            "times faster by 2 threads": {},
            "in trainings": {"channels_last": True, "torch.compile": False},
        },
        "compiled": {"why not": "no C++ compiler"},
        "side by side": {"why not": "this process may use 1 core"},
        "growth": {name: dict.fromkeys(growth.PARTS, own) for name in FULL.growth},
    }
    figure = draw(content)
    assert len(figure.subfigs) == 3
    assert np.isfinite(figure.get_size_inches()).all()
