"""Runs and their teachers: who is trained anew when a teacher changes, and what a wrong teacher says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmark.experiment.settings import SettingsError
from benchmark.experiment.workspace import HERE
from benchmark.match import basis, match, teacher_weights
from pgd.checkpoint import CheckpointError, load_state


def two_pairs(content: dict) -> None:
    pairs = content["pairs"]
    pairs["other"] = json.loads(json.dumps(pairs["gfl"]))
    content["runs"] = {
        "student": {"pair": "gfl"},
        "mine": {"pair": "gfl", "method": "pgd"},
        "heir": {"pair": "gfl", "inherit": "head+neck"},
        "theirs": {"pair": "other", "method": "pgd"},
    }


def teach_otherwise(pair: str) -> None:
    """The pair's teacher, trained anew."""
    weights = HERE.teacher(pair) / "weights.pth"
    state = load_state(weights)
    state["bbox_head.gfl_cls.bias"] += 1
    torch.save(state, weights)


@pytest.fixture
def matched(taught_world):
    """Two pairs with the same teacher, matched."""
    params = taught_world.settle(two_pairs)
    HERE.teacher("other").mkdir()
    for file in HERE.teacher("gfl").iterdir():
        (HERE.teacher("other") / file.name).write_bytes(file.read_bytes())
    HERE.teacher_metrics("other").write_bytes(HERE.teacher_metrics("gfl").read_bytes())
    match(params)
    return params


def contents() -> dict[str, str]:
    return {path.stem: path.read_text() for path in (HERE.work / "match").iterdir()}


@pytest.mark.slow
def test_a_teacher_trained_anew_concerns_its_own_students(matched):
    before = contents()
    assert set(before) == {"student", "mine", "heir", "theirs"}
    match(matched)
    assert contents() == before
    teach_otherwise("gfl")
    match(matched)
    after = contents()
    assert {name for name in before if before[name] != after[name]} == {"mine", "heir"}
    assert json.loads(after["student"])["teacher"] is None


@pytest.mark.slow
def test_what_a_training_depends_on(matched):
    assert basis(matched.teacher("gfl")) == Path("work/plan/gfl/teacher-gfl.json")
    job = matched.student("mine")
    assert basis(job) == HERE.matched("mine")
    assert teacher_weights(job) == HERE.teacher("gfl") / "weights.pth"
    basis(job).unlink()
    with pytest.raises(SettingsError, match=r"work/match/mine\.json: not there; run `dvc repro match@mine`"):
        basis(job)


def test_another_teacher_than_the_matched_one_is_refused(matched):
    teach_otherwise("gfl")
    with pytest.raises(CheckpointError, match=r"weights\.pth: not the teacher that work/match/mine\.json names"):
        teacher_weights(matched.student("mine"))
    assert teacher_weights(matched.student("theirs")).is_file()


@pytest.mark.slow
def test_only_teachers_that_somebody_needs_must_be_there(matched, taught_world):
    (HERE.teacher("other") / "weights.pth").unlink()
    with pytest.raises(CheckpointError, match=r"teachers/other/weights\.pth: no such checkpoint"):
        match(matched)

    def alone(content: dict) -> None:
        two_pairs(content)
        content["runs"]["theirs"] = {"pair": "other"}

    match(taught_world.settle(alone))
    assert json.loads(HERE.matched("theirs").read_text())["teacher"] is None
