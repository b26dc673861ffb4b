"""What MasKD learns on a teacher: once for all its students, and nobody is taught behind other masks."""

from __future__ import annotations

import json

import pytest
import torch
from mmdet.registry import MODELS
from support.detectors import ALL, QUIET, batch, pair
from support.worlds import runs, same

from benchmark import cost
from benchmark.experiment.config import detector_config, training_config
from benchmark.experiment.settings import Detector, SettingsError
from benchmark.experiment.workspace import HERE, file_digest
from benchmark.match import LEARNER, basis, masks_of, match
from benchmark.training import masks
from pgd.checkpoint import CheckpointError, load_state

MASKD = {"method": "maskd", "inherit": "head+neck", "settings": {"weight": 1.0, "warmup": 1}}


def spoilt(path) -> None:
    """Other masks of the same shapes."""
    state = load_state(path)
    state["0.tokens"] += 1
    torch.save({"state_dict": state}, path)


@pytest.fixture
def matched(taught_world):
    """Two runs of MasKD and one without, matched: masks are learned for as many iterations as the teacher, two."""
    params = taught_world.settle(runs(student={}, pgd={"method": "pgd"}, first=MASKD, second=MASKD))
    match(params)
    return params


def known(name: str) -> dict:
    return json.loads(HERE.matched(name).read_text())


@pytest.mark.slow
def test_learning_lowers_both_losses_and_leaves_the_teacher_alone(taught_world):
    own = taught_world.settle().teacher("gfl")
    cfg = training_config(own, taught_world.data, None, HERE.work)
    teacher = MODELS.build(cfg.model.student)
    teacher.load_state_dict(load_state(HERE.teacher("gfl") / "weights.pth"))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    batch = next(masks.batches_of(cfg, 0, torch.device("cpu")))
    torch.manual_seed(0)
    found, (first, last) = masks.learn(teacher, iter([batch] * 12), 12)
    assert len(found) == 5
    assert first["overlap"] == pytest.approx(5, abs=0.1), "at first all masks of a level are about a half"
    assert sum(last.values()) < sum(first.values())
    assert last["overlap"] < first["overlap"]
    assert same(dict(teacher.state_dict()), before)
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.neck._forward_hooks


@QUIET
@pytest.mark.parametrize("name", ALL)
def test_every_head_teaches_its_masks(name):
    """Also those that work otherwise in training."""
    teacher = pair(name).teacher
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    torch.manual_seed(0)
    found, (first, last) = masks.learn(teacher, iter([batch()] * 4), 4)
    assert last["overlap"] < first["overlap"]
    assert same(dict(teacher.state_dict()), before)
    assert all(bool(level.tokens.grad.any()) for level in found)
    assert any(bool(level.shares[0].weight.grad.any()) for level in found)


@pytest.mark.slow
def test_masks_are_learned_once_for_all_students(matched, monkeypatch):
    path = masks_of(matched.student("first"))
    assert path == HERE.masks(matched.student("second").pair_name) / "masks.pth"
    assert known("first")["masks"] == known("second")["masks"] == file_digest(path)
    record = json.loads(path.with_name("masks.json").read_text())
    assert (record["iterations"], record["parameters"]) == (2, sum(v.numel() for v in load_state(path).values()))
    monkeypatch.setattr(masks, "learn", None)
    before = {path.name: path.read_text() for path in (HERE.work / "match").iterdir()}
    match(matched)
    assert {path.name: path.read_text() for path in (HERE.work / "match").iterdir()} == before


@pytest.mark.slow
def test_runs_without_masks_know_nothing_of_them(matched):
    for name in ("student", "pgd"):
        assert known(name).keys() == {"plan", "teacher"}
        assert LEARNER not in known(name)["plan"]["code"]
        assert masks_of(matched.student(name)) is None
    assert LEARNER in known("first")["plan"]["code"]


def test_where_no_run_asks_nothing_is_learned(taught_world, monkeypatch):
    monkeypatch.setattr(masks, "learned", None)
    match(taught_world.settle())
    assert not (HERE.work / "masks").exists()


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["gone", "other", "teacher"])
def test_other_masks_than_the_matched_ones_are_refused_and_learned_anew(matched, harm):
    job = matched.student("first")
    path = masks_of(job)
    if harm == "gone":
        path.unlink()
    elif harm == "other":
        spoilt(path)
    else:
        weights = HERE.teacher("gfl") / "weights.pth"
        state = load_state(weights)
        state["bbox_head.gfl_cls.bias"] += 1
        torch.save(state, weights)
        learnt = masks.learned(job, HERE)
        assert learnt == path, "for the new teacher; the run was matched with the old one's"
    what = "not there" if harm == "gone" else f"not the masks that {basis(job)} names"
    with pytest.raises(CheckpointError) as error:
        masks_of(job)
    assert (
        str(error.value) == f"{path}: {what}; run `python -m benchmark.match first`, which learns them on the teacher"
    )
    before = known("first")["masks"]
    match(matched)
    assert masks_of(job) == path
    assert (known("first")["masks"] == before) == (harm != "teacher"), "the same teacher's are the same to the bit"


@pytest.mark.slow
def test_masks_of_another_length_are_learned_anew(matched, monkeypatch):
    """How long follows from the scale of the detector, whose rule is in no file that a training depends on."""
    monkeypatch.setattr(masks, "iterations", lambda cfg: 1)
    before = known("first")["masks"]
    match(matched)
    assert known("first")["masks"] != before
    assert json.loads(masks_of(matched.student("first")).with_name("masks.json").read_text())["iterations"] == 1


def test_masks_are_not_given_by_hand(taught_world):
    with pytest.raises(SettingsError, match=r"runs\.mine: settings\.tokens: filled in, the stage `match` learns them"):
        taught_world.settle(runs(mine={"method": "maskd", "settings": {"tokens": "my.pth"}}))


def test_how_long_they_are_learned():
    small, short = (Detector("benchmark/configs/mini/gfl_r34.py", iterations=n) for n in (1500, 100))
    assert masks.iterations(detector_config(small)) == 160
    assert masks.iterations(detector_config(short)) == 100
    assert masks.iterations(detector_config(Detector("benchmark/configs/paper/gfl_r101_3x.py"))) == masks.ITERATIONS


@pytest.mark.slow
def test_a_student_is_taught_behind_the_learned_masks(taught_world):
    params = taught_world.settle(runs(student={}, mine=MASKD))
    record = json.loads((taught_world.train(params, "mine") / "train.json").read_text())
    path = masks_of(params.student("mine"))
    assert record["settings"]["tokens"] == file_digest(path)[:16]
    assert record["extra_parameters"] == 5 * (32 * 32 + 32), "masks are not the student's to learn"
    match(params)
    table = cost.measure(params, turns=1).set_index("run")
    assert table.loc["mine", "first_stage_s"] == json.loads(path.with_name("masks.json").read_text())["seconds"] > 0
    assert table.loc["student", "first_stage_s"] == 0
