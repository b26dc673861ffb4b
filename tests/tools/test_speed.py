"""The measurement of speed, with tiny sizes: what its record holds and how ratios are made; never how long it takes."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from support.detectors import QUIET
from support.worlds import LIGHT

from tools import arguments, speed
from tools.timed import bench as benches
from tools.timed import compiled, growth, loading, machine, parts, side, switches, targets, turns
from tools.timed import steps as timed_steps
from tools.timed.children import called, ended, started
from tools.timed.extent import FULL, QUICK, Extent

pytestmark = QUIET

TINY = Extent(
    turns=2,
    warm_up=1,
    detectors=("gfl",),
    methods=("pgd", "fgd", "crosskd"),
    others=False,
    batches=2,
    growth={"objects": (1, 4, 16), "images": (1, 2, 3), "side": (64, 96, 128), "levels": (3, 4, 6)},
    usual={"objects": 3, "images": 1, "side": 64, "levels": 5},
    compiling=0.0,
    side_steps=1,
    starts=2,
    detections=5,
    options=LIGHT,
)
#: answers as `serve` does, and needs no torch
ECHO = ["-c", "import sys\nfor line in sys.stdin: print('done', flush=True)"]


@pytest.fixture
def bench(tiny_data, tmp_path, monkeypatch):
    """GFL on a dozen images, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    benches.begin()
    return benches.Bench("gfl", tiny_data, TINY)


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


def test_the_order_is_another_one_each_turn():
    called: list[str] = []
    turns.in_turns({name: lambda turn, name=name: called.append(name) for name in "abcd"}, 8, "test", warm_up=0)
    orders = {tuple(called[i : i + 4]) for i in range(0, 32, 4)}
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len(orders) > 2


def test_a_variant_that_fails_does_not_leave_the_collector_frozen():
    import gc

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
        "loader": {
            "steps of a training": 400,
            "share of the student's step": {"here": spread_of(0.05), "over a training": spread_of(0.05)},
        },
        "evaluation": {"pycocotools / here": spread_of(50.0), "largest difference": 0.0},
        "start": {"ms": {"training, first step done": spread_of(5000.0)}},
        "growth": {"objects": {"maps": grown, "step": grown}},
    }


def test_all_targets_of_the_issue_have_a_line():
    rows = targets.targets(record())
    assert all(row["met"] for row in rows)
    assert [row["target"] for row in rows] == [
        *("at most 1.05", "at most 1.15", "at most 1.15", "at most 1.1", "at least 1.5"),
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


def test_what_does_not_grow_meets_its_target():
    content = record()
    content["growth"]["objects"]["step"]["growth"] = {"exponent": None, "steepest": 0.0}
    assert all(row["met"] for row in targets.targets(content))


# ------------------------------------------------------------------------------------- machine, extent, processes


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


def test_extents():
    assert FULL.share(0.3) == 6
    assert QUICK.share(0.1) == 2, "there is no spread of one"
    for extent in (FULL, QUICK, TINY):
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
    assert arguments.COMMANDS["speed"]


def test_two_processes_are_asked_at_once_and_one_that_has_ended_is_noticed():
    both, dead = [started(ECHO), started(ECHO)], started(["-c", "pass"])
    try:
        side.ask(both, "1 3")
        side.ask(both, "2 6")
        dead.wait()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="has ended"):
                side.ask([both[0], dead], "1 3")
    finally:
        for process in (*both, dead):
            ended(process)
    assert all(process.returncode is not None for process in both)


def test_a_process_that_fails_is_an_error_with_its_words():
    called(["-c", "print(input())"], "text\n")
    with pytest.raises(RuntimeError, match="no such thing"):
        called(["-c", "raise SystemExit('no such thing')"])


def test_one_core_is_a_reason(monkeypatch, bench):
    monkeypatch.setattr(side, "cores", lambda: 1)
    assert side.side_by_side(bench) == {"why not": "this process may use 1 core"}


# --------------------------------------------------------------------------------------------------- torch.compile


def long_enough(bench):
    return replace(bench, extent=replace(bench.extent, compiling=20.0))


def test_compile_without_a_compiler(monkeypatch, bench):
    assert "why not" in compiled.compiled(bench)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiled.compiled(long_enough(bench)) == {"why not": "no C++ compiler (no-such-compiler)"}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import sys; sys.stdin.read(); print('noise'); print('{\"ms\": 1}')", {"ms": 1}),
        ("import sys; sys.stderr.write('a\\nCppCompileError: b\\n'); sys.exit(1)", "it failed: CppCompileError: b"),
        ("import time; time.sleep(60)", "not compiled and measured within 0.5 s"),
    ],
    ids=["done", "failed", "late"],
)
def test_how_compiling_ends(monkeypatch, bench, code, found):
    monkeypatch.setattr(compiled, "lacking", lambda: None)
    seconds = 0.5 if "sleep" in code else 20.0
    bench = replace(bench, extent=replace(bench.extent, compiling=seconds))
    expected = found if isinstance(found, dict) else {"why not": found}
    assert compiled.compiled(bench, ["-c", code]) == expected


# ------------------------------------------------------------------------------------------------ what is measured


def test_a_bench_goes_to_another_process_and_back(bench):
    again = benches.Bench.of_text(bench.as_text())
    assert again.data == bench.data
    assert again.extent.turns == TINY.turns
    assert again.job.detector == bench.job.detector
    assert "\n" not in bench.as_text(), "it is the first line that a training reads"


def test_the_literal_student_has_no_switch_on_and_computes_the_same(bench):
    _, plain = bench.student()
    _, ours = bench.training()
    kernel = "student.backbone.layer1.0.conv1.weight"
    for model, last in ((plain, False), (ours, True)):
        assert model.state_dict()[kernel].is_contiguous(memory_format=torch.channels_last) == last
        assert ("grid_priors" in vars(model.student.bbox_head.prior_generator)) == last
    batch = bench.batches[0]
    literal = benches.first_loss(plain, benches.listed(batch))
    assert benches.first_loss(ours, batch) == pytest.approx(literal, rel=1e-5)
    assert "fused" not in bench.optimizer()
    assert bench.optimizer(foreach=True)["foreach"]


def test_switches_are_on_one_at_a_time(bench):
    for name, switch in switches.ALONE.items():
        _, model = bench.student(**switch)
        kernel = model.student.backbone.layer1[0].conv1.weight
        assert kernel.is_contiguous(memory_format=torch.channels_last) == (name == "channels_last"), name
        assert ("grid_priors" in vars(model.student.bbox_head.prior_generator)) == (name == "anchors made once"), name
    found = switches.in_trainings(bench)
    assert [name for name, there in found.items() if there] == [
        *("channels_last", "fused optimiser", "anchors made once", "images stacked")
    ]


def test_methods_teach_from_their_first_step_on(bench):
    assert {"pgd", "icd", "frs", "pgd_released"} <= bench.runs.keys()
    assert all(run.settings.get("warmup", 0) == 0 and run.inherit == "none" for run in bench.runs.values())


def test_threads_are_given_back():
    before, seen = torch.get_num_threads(), []
    switches.by_threads(lambda turn: seen.append(torch.get_num_threads()), 2)(0)
    assert seen == [2]
    assert torch.get_num_threads() == before


def test_a_stored_teacher_is_the_live_one(bench, tmp_path):
    """The same losses, and the model is live again after the step."""
    teacher, kind = bench.teacher(tmp_path)
    assert kind == "random"
    _, model = bench.training(bench.runs["pgd"], teacher)
    ready = [model.data_preprocessor(batch, True) for batch in bench.batches]
    ready = [batch | {"inputs": benches.channels_last(batch["inputs"])} for batch in ready]
    features, equal = timed_steps.store_of(ready, model.teacher, tmp_path / "features")
    assert equal
    losses: list[dict] = []

    def look(turn: int) -> None:
        losses.append(model.loss(ready[turn]["inputs"], ready[turn]["data_samples"]))

    look(0)
    model.teacher.backbone = None  # nobody asks it again
    timed_steps.with_store(model, look, features)(0)
    assert model._stored is None
    live, stored = losses
    assert live.keys() == stored.keys()
    pairs = [(a, b) for name in live for a, b in zip(*map(listed_terms, (live[name], stored[name])), strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)


def listed_terms(loss: torch.Tensor | list) -> list[torch.Tensor]:
    return loss if isinstance(loss, list) else [loss]


def test_maps_are_made_anew_in_each_turn(bench, tmp_path):
    """What the teacher said is decoded every time, as in a training."""
    teacher, _ = bench.teacher(tmp_path)
    _, model = bench.training(bench.runs["pgd"], teacher)
    ready = [model.data_preprocessor(batch, True) for batch in bench.batches]
    work = timed_steps.mapping(model, ready)
    decoded = []
    own = type(model._tapes[1].reader).boxes
    reader = model._tapes[1].reader
    reader.boxes = lambda outputs, grid: decoded.append(1) or own(reader, outputs, grid)
    for turn in range(3):
        work(turn)
    assert len(decoded) == 3


def test_subjects_are_as_trainings_have_them():
    from tools.steps import QUICK as SCALE
    from tools.steps import Subject, batch_of

    subject = Subject("pgd", "gfl", SCALE, "cpu")
    assert subject.model.memory_format == torch.channels_last
    assert batch_of(2, SCALE, "cpu")[0].is_contiguous(memory_format=torch.channels_last)
    six = Subject("pgd", "gfl", SCALE, "cpu", levels=6)
    assert len(six.model.method.level_weights) == 6
    assert six.model.student.neck.num_outs == 6
    assert len(growth.parts_of(six, TINY.usual | {"levels": 6})) == len(growth.PARTS)


def test_loaders_load_the_same_images_and_first_sight_is_first(bench):
    ours, plain = loading.opened(loading.ours(bench)), loading.opened(loading.literal(bench))
    kinds = [type(t).__name__ for t in plain.dataset.pipeline.transforms]
    assert kinds[0] == "LoadImageFromFile"
    assert isinstance(next(iter(plain))["inputs"], list), "one by one"
    batch = next(iter(ours))
    assert batch["inputs"].shape == (2, 3, 160, 160)
    kept = ours.dataset.pipeline.transforms[0]._images
    assert len(kept) == 2
    loading.forget(ours)
    assert not kept


def test_evaluation_is_of_detections_that_find_something(tiny_data):
    found = parts.evaluation(tiny_data, TINY)
    assert found["detections"] == 6 * TINY.detections
    assert found["AP"] > 0
    assert found["largest difference"] == 0
    assert is_spread(found["pycocotools / here"])


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


@pytest.mark.slow
def test_a_quick_measurement_ends_with_a_record_a_figure_and_a_table(tiny_world, monkeypatch, capsys):
    monkeypatch.setattr(speed, "QUICK", TINY)
    monkeypatch.setattr(sys, "argv", ["speed", "--quick", "--out", "out"])
    # the processes are tested by themselves
    monkeypatch.setattr(side, "SERVE", ECHO)
    monkeypatch.setattr(parts, "BEGIN", "pass")
    monkeypatch.setattr(parts, "STEP", "import sys; assert sys.stdin.read()")
    monkeypatch.setattr(side, "cores", lambda: 2)
    speed.main()
    content = json.loads((tiny_world.folder / "out" / "speed.json").read_text())
    check(content, TINY)
    assert (tiny_world.folder / "out" / "speed.png").stat().st_size > 10_000
    assert all(row["what"] in capsys.readouterr().out for row in content["targets"][:1])


@pytest.mark.slow
def test_other_methods_of_the_first_detector(bench, tmp_path):
    """Those that no target is set for are measured in turns of their own."""
    bench.runs  # noqa: B018  all of them; a few are enough
    bench.__dict__["runs"] = {name: bench.runs[name] for name in ("pgd", "fitnet", "pgd_released")}
    found = timed_steps.steps(replaced(bench, methods=("pgd",)), tmp_path, others=True)
    assert set(found["live"]) == set(found["stored / student"]) == {"pgd", "fitnet", "pgd_released"}
    assert found["place"].keys() == found["live"].keys()
    assert not found["not finite"]


def replaced(bench, **changes):
    """The same bench with the same runs and another extent."""
    own = replace(bench, extent=replace(bench.extent, **changes))
    own.__dict__["runs"] = bench.runs
    return own


@pytest.mark.slow
def test_trainings_in_processes_of_their_own(bench):
    """One that serves steps, and one that takes its first."""
    process = started(side.SERVE)
    try:
        side.ask([process], bench.as_text())
        side.ask([process], "1 1")
        side.ask([process], "2 1")
    finally:
        ended(process)
    called(["-c", parts.STEP], bench.as_text())


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
