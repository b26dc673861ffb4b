"""A checkpoint that is cut off, damaged, foreign or not finite is told, set aside, and the one before is used."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.kills import Killed, kill_at
from support.worlds import World, runs, same

from benchmark.experiment.config import DatasetInfo, training_config
from benchmark.training.resuming import checkpoints, point_to_newest
from pgd.checkpoint import load_state

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Stopped:
    """A training that was killed in its last step of four, and what it would have ended with."""

    folder: Path
    weights: dict[str, torch.Tensor]
    curve: str

    def copied(self, folder: Path, data: DatasetInfo) -> World:
        """A world that goes on from there."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return World(folder, data)


PLAIN = runs(4, student={})
#: of a world with a training that was stopped
KEPT = Path("work/checkpoints/student-0")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, tiny_data) -> Stopped:
    folder = tmp_path_factory.mktemp("stopped")
    world = World(folder, tiny_data)
    with contextlib.chdir(folder):
        params = world.settle(PLAIN)
        out = world.train(params, "student")
        found = Stopped(folder, load_state(out / "weights.pth"), (out / "curve.jsonl").read_text())
        shutil.rmtree("work/checkpoints")
        shutil.rmtree(out)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            kill_at(4, patch)
            world.train(params, "student")
        assert {path.name for path in KEPT.glob("*.pth")} == {"iter_2.pth", "iter_3.pth"}
    return found


def pointer(text: str):
    """Another content of the file that names the newest checkpoint."""
    return lambda path: path.with_name("last_checkpoint").write_text(text)


def cut(length: int):
    """A checkpoint of so many bytes; negative: so many are missing."""
    return lambda path: path.write_bytes(path.read_bytes()[:length])


def flipped(path: Path) -> None:
    """One bit of the weights is another one: torch reads that."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def saved(change):
    """A whole file with another content."""

    def spoil(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        torch.save(change(content) or content, path)

    return spoil


def of_another(content: dict) -> None:
    content["state_dict"] = {f"student.{name}": value for name, value in content["state_dict"].items()}


def another_shape(content: dict) -> None:
    content["state_dict"][BIAS] = torch.zeros(7)


def not_a_number(content: dict) -> None:
    content["state_dict"][BIAS][0] = math.nan


def not_a_moment(content: dict) -> None:
    content["optimizer"]["state"][0]["exp_avg"][0] = math.inf


BIAS = "student.bbox_head.gfl_cls.bias"
POINTERS = {
    "a torn name": pointer(str(KEPT / "iter_3.p")),
    "an empty name": pointer(""),
    "another name": pointer("elsewhere/iter_9.pth"),
}
#: what may have happened to the newest checkpoint, and what is said of it
SPOILT = {
    "truncated": (cut(-100), "cut off or damaged"),
    "empty": (cut(0), "cut off or damaged"),
    "flipped": (flipped, "cut off or damaged"),
    "foreign": (saved(of_another), "of another model ("),
    "NaN": (saved(not_a_number), f"not finite (1 entries, first: state_dict.{BIAS})"),
    "shape": (saved(another_shape), f"of another model (1 entries differ, first: {BIAS})"),
    "moments": (saved(not_a_moment), "not finite (1 entries, first: optimizer.state.0.exp_avg)"),
    "seed": (saved(lambda content: content["meta"].update(seed=7)), "of seed 7, not 0"),
    "weights": (saved(lambda content: content["state_dict"]), "without 'meta'"),
    "meta": (saved(lambda content: content["meta"].pop("head_memory")), "without 'meta.head_memory'"),
    "object": (saved(lambda content: content | {"more": Path("x")}), "no checkpoint of plain data"),
    "list": (saved(lambda content: [1]), "without 'meta'"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_checkpoint_that_is_no_good_is_set_aside(stopped, tiny_data, tmp_path, monkeypatch, capsys, what):
    """The one before is what the training goes on from, and nothing is lost."""
    world = stopped.copied(tmp_path, tiny_data)
    monkeypatch.chdir(tmp_path)
    job = world.settle(PLAIN).student("student", 0)
    spoil, words = SPOILT[what]
    spoil(KEPT / "iter_3.pth")
    data = (KEPT / "iter_3.pth").read_bytes()
    model = training_config(job, tiny_data, None, KEPT).model
    assert point_to_newest(KEPT, model, 0) == KEPT / "iter_2.pth"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{KEPT / 'iter_3.pth'}: {words}")
    assert line.endswith("; the training does not go on from it, and it is kept as iter_3.pth.unusable")
    assert (KEPT / "iter_3.pth.unusable").read_bytes() == data
    assert Path((KEPT / "last_checkpoint").read_text()) == KEPT / "iter_2.pth"


@pytest.mark.parametrize("what", [*POINTERS, "truncated", "empty", "foreign", "NaN"])
def test_it_ends_as_if_all_had_been_good(stopped, tiny_data, tmp_path, monkeypatch, capsys, what):
    world = stopped.copied(tmp_path, tiny_data)
    monkeypatch.chdir(tmp_path)
    params = world.settle(PLAIN)
    spoil = POINTERS[what] if what in POINTERS else SPOILT[what][0]
    spoil(KEPT / "iter_3.pth")
    out = world.train(params, "student")
    assert f"student-0: going on from iter_{3 if what in POINTERS else 2}.pth" in capsys.readouterr().out
    assert same(load_state(out / "weights.pth"), stopped.weights)
    assert (out / "curve.jsonl").read_text() == stopped.curve


def test_without_a_good_checkpoint_it_starts_anew(stopped, tiny_data, tmp_path, monkeypatch, capsys):
    world = stopped.copied(tmp_path, tiny_data)
    monkeypatch.chdir(tmp_path)
    params = world.settle(PLAIN)
    for path in KEPT.glob("*.pth"):
        cut(-100)(path)
    out = world.train(params, "student")
    said = capsys.readouterr()
    assert "going on" not in said.out
    assert f"{KEPT}: no good checkpoint is left; the training starts anew" in said.err.splitlines()
    assert json.loads((out / "train.json").read_text())["resumed"] is False
    assert same(load_state(out / "weights.pth"), stopped.weights)
    assert (out / "curve.jsonl").read_text() == stopped.curve


def test_checkpoints_are_told_by_their_numbers(tmp_path):
    for name in ("iter_9.pth", "iter_10.pth", "iter_11.pth.partial", "iter_x.pth", "best.pth"):
        (tmp_path / name).touch()
    (tmp_path / "iter_12.pth").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["iter_10.pth", "iter_9.pth"]
