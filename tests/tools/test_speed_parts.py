"""The parts of the measurement of speed: each is what it is called, on a dozen images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.detectors import QUIET

from tools.steps import QUICK, Subject, batch_of
from tools.timed import bench as benches
from tools.timed import compiled, growth, loading, parts, side, switches
from tools.timed import steps as timed_steps
from tools.timed.children import called, ended, started

pytestmark = [QUIET, pytest.mark.slow]


def test_two_processes_are_asked_at_once_and_one_that_has_ended_is_noticed(echo):
    both, dead = [started(echo), started(echo)], started(["-c", "pass"])
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


def test_a_bench_goes_to_another_process_and_back(bench):
    again = benches.Bench.of_text(bench.as_text())
    assert again.data == bench.data
    assert again.extent.turns == bench.extent.turns
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


def test_subjects_are_as_trainings_have_them(tiny):
    subject = Subject("pgd", "gfl", QUICK, "cpu")
    assert subject.model.memory_format == torch.channels_last
    assert batch_of(2, QUICK, "cpu")[0].is_contiguous(memory_format=torch.channels_last)
    six = Subject("pgd", "gfl", QUICK, "cpu", levels=6)
    assert len(six.model.method.level_weights) == 6
    assert six.model.student.neck.num_outs == 6
    assert len(growth.parts_of(six, tiny.usual | {"levels": 6})) == len(growth.PARTS)


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


def test_evaluation_is_of_detections_that_find_something(tiny, tiny_data):
    found = parts.evaluation(tiny_data, tiny)
    assert found["detections"] == 6 * tiny.detections
    assert found["AP"] > 0
    assert found["largest difference"] == 0
    assert found["pycocotools / here"]["median"] > 0


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.parametrize("literal", [False, True])
def test_trainings_that_serve_steps_in_processes_of_their_own(bench, literal):
    process = started(side.serving(literal))
    try:
        side.ask([process], bench.as_text())
        side.ask([process], "1 1")
        side.ask([process], "2 1")
    finally:
        ended(process)


@pytest.mark.long
def test_a_first_step_in_a_process_of_its_own(bench):
    called(["-c", parts.STEP], bench.as_text())
