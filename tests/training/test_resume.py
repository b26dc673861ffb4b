"""A killed training goes on as if nothing had happened, and never goes on from another training's checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from support.commands import environment
from support.kills import Killed, kill_at
from support.worlds import runs, same

from benchmark import train as stage
from benchmark.experiment import config
from benchmark.experiment.workspace import HERE, ROOT
from benchmark.training import hooks
from pgd.checkpoint import load_state

pytestmark = pytest.mark.slow


def ddod_alone(content: dict) -> None:
    """A head that counts positives outside its state dict."""
    runs(4, workers=1, fgd={})(content)
    content["pairs"]["gfl"]["student"]["config"] = "benchmark/configs/mini/ddod_r18.py"


def accumulating(content: dict) -> None:
    """Two batches an update, saved after whole updates: step 2, not 1."""
    runs(4, workers=1, fgd={"method": "fgd", "inherit": "head+neck"})(content)
    content["pairs"]["gfl"]["student"]["options"]["optim_wrapper"] = {
        "type": "OptimWrapper",
        "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9},
        "clip_grad": {"max_norm": 10},
        "accumulative_counts": 2,
    }


FGD = runs(4, workers=1, fgd={"method": "fgd", "inherit": "head+neck"})


@pytest.mark.long
@pytest.mark.parametrize("change", [FGD, ddod_alone, accumulating], ids=["fgd", "ddod", "accumulating"])
def test_killed_and_resumed_is_the_same(taught_world, monkeypatch, capsys, change):
    """With adapters, and with a worker process that reads ahead, as the benchmark's trainings have them."""
    params = taught_world.settle(change)
    straight = taught_world.train(params, "fgd")
    expected, curve = load_state(straight / "weights.pth"), (straight / "curve.jsonl").read_text()
    shutil.rmtree("work/checkpoints")
    shutil.rmtree(straight)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(3, patch)
        taught_world.train(params, "fgd")
    assert Path(Path("work/checkpoints/fgd-0/last_checkpoint").read_text()).name == "iter_2.pth"
    assert not straight.exists()
    out = taught_world.train(params, "fgd")
    assert "fgd-0: going on from iter_2.pth" in capsys.readouterr().out
    assert json.loads((out / "train.json").read_text())["resumed"] is True
    assert same(load_state(out / "weights.pth"), expected)
    assert (out / "curve.jsonl").read_text() == curve, "no step is missing and none stands twice"


def epochs(content: dict) -> None:
    """Two epochs of six steps, saved after every fourth step."""
    runs(2, workers=1, fgd={"method": "fgd", "inherit": "head+neck"})(content)
    student = content["pairs"]["gfl"]["student"]
    student["iterations"] = None
    student["options"] |= {
        "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 2, "val_interval": 1},
        "train_dataloader.sampler": {"type": "DefaultSampler", "shuffle": True},
    }


def grouped(content: dict) -> None:
    """Upright and lying images in batches of their own, as COCO's."""
    epochs(content)
    content["pairs"]["gfl"]["student"]["options"] |= {
        "train_dataloader.batch_sampler": {"type": "AspectRatioBatchSampler"}
    }


@pytest.mark.long
@pytest.mark.parametrize("change", [epochs, grouped])
@pytest.mark.parametrize("step", [6, 12])
def test_killed_within_an_epoch(taught_world, monkeypatch, capsys, step, change):
    monkeypatch.setattr(config, "LONG", 4)
    params = taught_world.settle(change)
    straight = taught_world.train(params, "fgd")
    expected, curve = load_state(straight / "weights.pth"), (straight / "curve.jsonl").read_text()
    assert [json.loads(line)["step"] for line in curve.splitlines() if "AP" in line] == [6, 12]
    shutil.rmtree("work/checkpoints")
    shutil.rmtree(straight)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(step, patch)
        taught_world.train(params, "fgd")
    out = taught_world.train(params, "fgd")
    assert f"fgd-0: going on from iter_{step // 5 * 4}.pth" in capsys.readouterr().out
    assert same(load_state(out / "weights.pth"), expected)
    assert (out / "curve.jsonl").read_text() == curve


def test_killed_before_the_last_look(taught_world):
    """Between the last checkpoint and the AP after it, which five steps have outside of the usual interval."""
    params = taught_world.settle(runs(5, student={}))
    straight = taught_world.train(params, "student")
    curve, kept = (straight / "curve.jsonl").read_text(), Path("work/checkpoints/student-0/curve.jsonl")
    shutil.rmtree(straight)
    *lines, last = kept.read_text().splitlines(keepends=True)
    assert json.loads(last).keys() == {"step", "AP"}
    kept.write_text("".join(lines))
    assert (taught_world.train(params, "student") / "curve.jsonl").read_text() == curve


def test_killed_while_saving(taught_world, monkeypatch, capsys):
    """A half-written checkpoint is never read, and the one before it is still there."""
    params = taught_world.settle(runs(4, student={}))
    expected = load_state(taught_world.train(params, "student") / "weights.pth")
    shutil.rmtree("work/checkpoints")
    put = hooks.LocalBackend.put

    def half(self, obj, filepath):
        if "iter_3" in str(filepath):
            put(self, obj[: len(obj) // 2], filepath)
            raise Killed
        put(self, obj, filepath)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(hooks.LocalBackend, "put", half)
        taught_world.train(params, "student")
    folder = Path("work/checkpoints/student-0")
    assert (folder / "iter_3.pth.partial").exists()
    assert not (folder / "iter_3.pth").exists()
    out = taught_world.train(params, "student")
    assert "going on from iter_2.pth" in capsys.readouterr().out
    assert same(load_state(out / "weights.pth"), expected)


def change_setting(world):
    return world.settle(runs(4, pgd={"method": "pgd", "settings": {"alpha": 0.2}}))


def change_data(world):
    # `prepare` digests what it finds
    world.describe(replace(world.data, digest="other"))
    return world.settle(runs(4, pgd={"method": "pgd"}))


def change_teacher(world):
    weights = HERE.teacher("gfl") / "weights.pth"
    state = load_state(weights)
    state["bbox_head.gfl_cls.bias"] += 1
    torch.save(state, weights)
    return world.settle(runs(4, pgd={"method": "pgd"}))


@pytest.mark.long
@pytest.mark.parametrize("change", [change_setting, change_data, change_teacher])
def test_another_training_does_not_resume(taught_world, monkeypatch, capsys, change):
    params = taught_world.settle(runs(4, pgd={"method": "pgd"}))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(2, patch)
        taught_world.train(params, "pgd")
    mark = (taught_world.folder / "work/checkpoints/pgd-0/fingerprint").read_text()
    stage.claim(Path("work/checkpoints/pgd-0"), mark)
    assert Path("work/checkpoints/pgd-0/iter_1.pth").is_file(), "it is its own"
    out = taught_world.train(change(taught_world), "pgd")
    assert "going on" not in capsys.readouterr().out
    assert json.loads((out / "train.json").read_text())["resumed"] is False
    assert Path("work/checkpoints/pgd-0/fingerprint").read_text() != mark


@pytest.mark.long
def test_dvc_repro_that_was_killed_goes_on(taught_world):
    """All of it at once, as by a machine that goes down; DVC's own lock is in nobody's way then."""
    folder = taught_world.folder
    params = taught_world.settle(runs(12, workers=1, fgd={"method": "fgd", "inherit": "head+neck"}))
    out = taught_world.train(params, "fgd")
    expected, curve = load_state(out / "weights.pth"), (out / "curve.jsonl").read_text()
    shutil.rmtree("work/checkpoints")
    shutil.rmtree(out)

    settings = {"cwd": folder, "env": environment() | {"DVC_NO_ANALYTICS": "1"}}
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["git", "init", "-q"], [*dvc, "init", "-q"]):
        subprocess.run(command, check=True, **settings)
    distill = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["distill"]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"distill": distill}}))
    killed = subprocess.Popen([*dvc, "repro"], start_new_session=True, **settings)
    checkpoints = taught_world.space.checkpoints(params.student("fgd", 0))
    while not (checkpoints / "last_checkpoint").is_file():
        assert killed.poll() is None
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    assert not out.exists()

    done = subprocess.run([*dvc, "repro"], capture_output=True, text=True, timeout=300, check=False, **settings)
    assert done.returncode == 0, done.stderr
    assert "fgd-0: going on from iter_" in done.stdout
    assert same(load_state(out / "weights.pth"), expected)
    assert (out / "curve.jsonl").read_text() == curve
    assert not checkpoints.exists(), "what is done needs none"
