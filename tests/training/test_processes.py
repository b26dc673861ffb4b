"""One training by two processes is that of one with all images; a training that is told to end goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.commands import environment
from support.slurm import NEEDS_SLURM
from support.worlds import World, runs, same

from benchmark.experiment.settings import Detector, SettingsError
from benchmark.experiment.workspace import ROOT
from benchmark.training import processes
from pgd.checkpoint import load_state

ARGUMENTS = ["distill", "fgd", "--seed", "0"]
FGD = {"method": "fgd", "inherit": "head+neck"}


def test_one_process_starts_no_others():
    assert processes.command(Detector("x.py"), "benchmark.train", ARGUMENTS) is None


def test_started_processes_start_no_others(monkeypatch):
    monkeypatch.setenv(processes.STARTED, "2")
    assert processes.command(Detector("x.py", gpus=2), "benchmark.train", ARGUMENTS) is None


def test_torchrun_starts_the_same_command():
    found = processes.command(Detector("x.py", gpus=8), "benchmark.train", ARGUMENTS)
    assert found[-8:] == ["--nproc-per-node", "8", "-m", "benchmark.train", *ARGUMENTS]


def test_srun_starts_it_within_a_job_alone(monkeypatch):
    detector = Detector("x.py", gpus=8, launcher="slurm")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(SettingsError, match="this is none; call it from sbatch"):
        processes.command(detector, "benchmark.train", ARGUMENTS)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    found = processes.command(detector, "benchmark.train", ARGUMENTS)
    assert found[:3] == ["srun", "--ntasks", "8"]
    assert found[-6:] == ["-m", "benchmark.train", *ARGUMENTS]


def test_a_process_alone_does_not_train_for_two():
    with pytest.raises(SettingsError, match="gpus: 2 processes train together, and this is one"):
        processes.join(Detector("x.py", gpus=2))


def started(folder: Path, *arguments: str) -> subprocess.Popen:
    """The command, in a session of its own."""
    command = [sys.executable, "-m", "benchmark.train", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment(), start_new_session=True, stderr=subprocess.PIPE)


def command(folder: Path, *arguments: str) -> str:
    """What the command says, once it has ended well."""
    process = started(folder, *arguments)
    said = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, said
    return said


def shared(gpus: int, images: int, **chosen: dict):
    """A change of the settings: students of so many processes with so many images each.

    FCOS divides by what is never small: GFL, by a sum of scores that has a bound while nothing is learnt yet.
    """

    def change(content: dict) -> None:
        runs(4, **chosen)(content)
        student = content["pairs"]["gfl"]["student"]
        own = {
            "train_dataloader.batch_size": images,
            # statistics of a batch are those of one process
            "model.backbone.norm_eval": True,
            # AdamW's first steps have one size, however small a gradient is: they show rounding alone
            "optim_wrapper.optimizer": {"type": "SGD", "lr": 1e-3, "weight_decay": 0.0},
        }
        student |= {"gpus": gpus, "options": student["options"] | own, "config": "benchmark/configs/mini/fcos_r18.py"}

    return change


@pytest.mark.long
@pytest.mark.parametrize(("name", "run"), [("student", {}), ("fgd", FGD)])
def test_two_processes_train_as_one(taught_world: World, name, run):
    found = {}
    for gpus, images in ((1, 4), (2, 2)):
        params = taught_world.settle(shared(gpus, images, **{name: run}))
        taught_world.job(params, name, 0)
        command(taught_world.folder, "distill", name, "--seed", "0")
        out = taught_world.space.trained(params.student(name, 0))
        curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
        found[gpus] = load_state(out / "weights.pth"), curve, json.loads((out / "train.json").read_text())
    (one, curve, alone), (two, other, record) = found[1], found[2]
    assert record["batch_size"] == 2
    assert record["effective_batch"] == alone["effective_batch"] == 4
    assert [entry["step"] for entry in curve] == [entry["step"] for entry in other], "one of them writes"
    for entry, theirs in zip(curve, other, strict=True):
        assert entry.keys() == theirs.keys()
        if "loss" in entry:
            assert entry["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.long
@pytest.mark.parametrize(("gpus", "number"), [(1, signal.SIGUSR1), (2, signal.SIGTERM)])
def test_told_to_end_it_saves_and_goes_on(taught_world: World, gpus, number):
    def change(content: dict) -> None:
        runs(60, workers=1, fgd=FGD)(content)
        content["pairs"]["gfl"]["student"]["gpus"] = gpus

    params = taught_world.settle(change)
    job = taught_world.job(params, "fgd", 0)
    command(taught_world.folder, *ARGUMENTS)
    out, folder = taught_world.space.trained(job), taught_world.space.checkpoints(job)
    expected, curve = load_state(out / "weights.pth"), (out / "curve.jsonl").read_text()

    process = started(taught_world.folder, *ARGUMENTS)
    last = folder / "last_checkpoint"
    while not last.is_file():
        assert process.poll() is None
        time.sleep(0.02)
    # all of a job, as clusters do it: the loading processes, too
    os.killpg(process.pid, number)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode != 0
    assert "told to end after" in said, said
    step = int(said.split("told to end after ")[1].split()[0])
    assert 15 < step < 60, "after the first of the regular ones"
    assert Path(last.read_text()).name == f"iter_{step}.pth"
    command(taught_world.folder, *ARGUMENTS)
    assert same(load_state(out / "weights.pth"), expected)
    assert (out / "curve.jsonl").read_text() == curve


@pytest.mark.slow
@NEEDS_SLURM
def test_srun_starts_a_training_which_is_preempted_and_requeued(taught_world: World):
    """By a real Slurm: two tasks; told to end, it saves and gives up its node; requeued, it goes on."""

    def change(content: dict) -> None:
        runs(60, fgd=FGD)(content)
        content["pairs"]["gfl"]["student"] |= {"gpus": 2, "launcher": "slurm"}

    params = taught_world.settle(change)
    job = taught_world.job(params, "fgd", 0)
    folder, out = taught_world.space.checkpoints(job), taught_world.space.trained(job)
    # what a batch script does that wants to be requeued (sbatch --signal tells its tasks before the limit)
    script = taught_world.folder / "job.sh"
    script.write_text(
        f"#!/bin/bash\nexport PYTHONPATH={ROOT} OMP_NUM_THREADS=1\n{sys.executable} -m benchmark.train "
        f"{' '.join(ARGUMENTS)} || {{ echo ended with $?; sleep 30; }}\n"
    )
    submit = ["sbatch", "--parsable", "--requeue", "--ntasks=2", "--output=job.log", "--open-mode=append", str(script)]
    number = subprocess.run(submit, cwd=taught_world.folder, capture_output=True, text=True, check=True).stdout.strip()

    def said() -> str:
        log = taught_world.folder / "job.log"
        return log.read_text(errors="replace") if log.is_file() else ""

    def wait(done) -> None:
        end = time.monotonic() + 240
        while not done():
            assert time.monotonic() < end, said()
            time.sleep(0.1)

    try:
        wait((folder / "last_checkpoint").is_file)
        subprocess.run(["scancel", "--signal=USR1", number], check=True)
        wait(lambda: "ended with" in said())
        assert "told to end after" in said(), said()
        step = int(said().split("told to end after ")[1].split()[0])
        assert Path((folder / "last_checkpoint").read_text()).name == f"iter_{step}.pth"
        subprocess.run(["scontrol", "requeue", number], check=True)
        wait(lambda: (out / "train.json").is_file() and not folder.exists())
        assert f"fgd-0: going on from iter_{step}.pth" in said()
        record = json.loads((out / "train.json").read_text())
        assert (record["effective_batch"], record["resumed"]) == (4, True)
    finally:
        subprocess.run(["scancel", number], check=False)
