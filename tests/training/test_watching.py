"""What a training shows while it runs, and that this changes nothing of what it learns."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
from support.worlds import runs, same

from benchmark.experiment import watching
from benchmark.experiment.config import training_config
from benchmark.experiment.settings import SettingsError, parse
from benchmark.experiment.watching import BACKENDS, announce, watch
from benchmark.train import train
from benchmark.training.progress import ProgressBar
from pgd.checkpoint import load_state

RUNS = runs(2, inherit={"inherit": "head+neck"}, pgd={"method": "pgd", "inherit": "head+neck"})


def watched(*names: str):
    """A change of the settings: these show the course."""

    def change(content: dict) -> None:
        RUNS(content)
        content["watch"] = list(names)

    return change


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS)
def test_a_watched_training_learns_the_same(taught_world, monkeypatch, name):
    pytest.importorskip(name)
    monkeypatch.setattr(watching, "INTERVAL", 1)
    world = taught_world
    params = world.settle(RUNS)
    expected = load_state(world.train(params, "pgd") / "weights.pth")
    plan = {path.name: path.read_text() for path in world.space.plan("gfl").iterdir()}
    shutil.rmtree(world.space.checkpoints(params.student("pgd")))

    params = world.settle(watched(name))
    assert {path.name: path.read_text() for path in world.space.plan("gfl").iterdir()} == plan, (
        "nothing is to be trained anew"
    )
    job = world.job(params, "pgd")
    out = train(job, world.space, params)
    assert same(load_state(out / "weights.pth"), expected)
    files = [path for path in (world.space.watch(job) / name).rglob("*") if path.is_file()]
    assert files
    if name == "dvclive":
        assert {"loss.tsv", "loss_pgd_cls.tsv", "AP.tsv"} <= {path.name for path in files}


def test_what_is_not_installed_is_refused_before_anything_trains(tiny_world, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"^watch: tensorboard is not installed; `pip install tensorboard`"):
        tiny_world.settle(watched("tensorboard"))


def test_another_tool_is_refused(tiny_world):
    with pytest.raises(SettingsError, match=r"watch\.0: 'wandb'"):
        tiny_world.settle(watched("wandb"))


def test_by_default_nothing_is_written(tiny_world):
    params = tiny_world.settle(RUNS)
    job = params.student("pgd")
    cfg = training_config(job, tiny_world.data, None, tiny_world.folder)
    before = cfg.to_dict()
    watch(cfg, params, job, tiny_world.space)
    assert cfg.to_dict() == before


def test_the_bar_is_told_of_what_is_left_and_of_inheriting(tiny_world):
    params = tiny_world.settle(RUNS)
    job, inherit = params.student("pgd"), params.student("inherit")
    tiny_world.space.trained(inherit).mkdir(parents=True)
    curve = [{"step": 1, "loss": 3.0}, {"step": 1, "AP": 4.0}, {"step": 2, "AP": 6.5}]
    (tiny_world.space.trained(inherit) / "curve.jsonl").write_text("\n".join(map(json.dumps, curve)))
    cfg = training_config(job, tiny_world.data, None, tiny_world.folder)
    announce(cfg, params, job, tiny_world.space)
    bar = cfg.custom_hooks[0]
    assert bar["after"] == 2, "the teacher is still to be trained, the inheriting student is there"
    assert bar["compared"] == [(1, 4.0), (2, 6.5)]


def test_who_inherits_is_compared_with_nobody():
    content = {
        "datasets": {"minicoco": {}},
        "pairs": {"a": {"dataset": "minicoco", "teacher": {"config": "c.py"}, "student": {"config": "c.py"}}},
        "runs": {"inherit": {"pair": "a", "inherit": "head+neck"}, "pgd": {"pair": "a", "method": "pgd"}},
    }
    params = parse(content)
    assert watching._inheriting(params, params.student("inherit")) is None
    assert watching._inheriting(params, params.student("pgd")) is None, "it inherits nothing"


class Run:
    """As much of a runner as the bar looks at."""

    iter, max_iters, work_dir, val_dataloader = 0, 4, "work/pgd-0", [0]


def test_the_bar_shows_gain_and_the_whole():
    bar, runner = ProgressBar(after=10, compared=[(2, 6.5)]), Run()
    bar.before_train(runner)
    bar.before_val_epoch(runner)
    runner.iter = 2
    bar.after_val_epoch(runner, {"AP": 8.04})
    assert bar.shown == {"AP": "8.0", "gain": "+1.5"}
    runner.iter = 3
    bar.before_val_epoch(runner)
    bar.after_val_epoch(runner, {"AP": 9.0})
    assert bar.shown["AP"] == "9.0"
    assert "gain" not in bar.shown, "the other one was not looked at then"
    bar.after_train(runner)
