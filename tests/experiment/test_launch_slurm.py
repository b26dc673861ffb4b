"""The launcher on a real Slurm where there is one, and what it does where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from support.launching import experiment_in, launcher, status, wait_for, write
from support.slurm import NEEDS_SLURM, node_in

from benchmark.experiment import jobs
from benchmark.experiment.jobs import Queue, sorted_out
from benchmark.experiment.stages import StageError
from benchmark.experiment.workspace import ROOT, Workspace
from benchmark.launch import launch

LAST = ("--executor", "slurm", "--jobs", "2", "--only", "last")


@pytest.fixture
def folder(tmp_path) -> Path:
    return experiment_in(tmp_path)


@pytest.mark.slow
@NEEDS_SLURM
def test_slurm_runs_stages_and_a_cancelled_one_failed(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    launch(folder, "slurm", 2, ["side@one"], {})
    assert (folder / "work" / "one").is_file()
    write(folder, wait=60)
    watched = launcher(folder, "--executor", "slurm")
    wait_for(folder / "work" / "start_two")
    job = json.loads((folder / "work" / "launch" / "jobs.json").read_text())["side@two"]["id"]
    subprocess.run(["scancel", job], check=True)
    assert watched.wait(timeout=200) == 1
    assert not (folder / "work" / "two").is_file()
    write(folder, wait=1)
    launch(folder, "slurm", 2, ["last"], {})
    assert (folder / "work" / "z").is_file(), "called again, it runs what was cancelled"


@pytest.mark.slow
@NEEDS_SLURM
def test_a_launcher_that_died_finds_its_jobs_in_slurm(folder):
    write(folder, wait=20)
    first = launcher(folder, *LAST)
    files = [folder / "work" / f"start_{k}" for k in ("one", "two")]
    wait_for(*files)
    started = [file.read_text() for file in files]
    first.kill()
    first.wait()
    assert launcher(folder, *LAST).wait() == 0
    assert [file.read_text() for file in files] == started, "each ran once"
    assert (folder / "work" / "z").is_file()


TRAINING = """
import pathlib, signal, sys, time
work, told = pathlib.Path("work"), []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
(work / "started").touch()
until = time.monotonic() + (0 if (work / "saved").is_file() else 120)
while time.monotonic() < until and not told:
    time.sleep(0.1)
if told:
    (work / "saved").touch()
    print("x: told to end after 3 iterations; the same command goes on", file=sys.stderr)
    sys.exit(143)
(work / "one").write_text("done")
"""


@pytest.mark.slow
@NEEDS_SLURM
def test_a_training_whose_time_is_over_goes_on(folder):
    """Slurm tells it by SIGUSR2, as submitit asks; DVC, which would die of that, hears nothing."""
    (folder / "train.py").write_text(TRAINING)
    stages = {"side": {"cmd": f"mkdir -p work && {sys.executable} train.py", "outs": ["work/one"]}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    watched = launcher(folder, "--executor", "slurm", "--slurm", "nice=1", "signal_delay_s=30")
    wait_for(folder / "work" / "started")
    job = json.loads((folder / "work" / "launch" / "jobs.json").read_text())["side"]["id"]
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    assert watched.wait(timeout=240) == 0
    assert (folder / "work" / "saved").is_file()
    assert (folder / "work" / "one").read_text() == "done"
    assert status(folder) == {}


@pytest.mark.slow
@NEEDS_SLURM
def test_a_node_that_dies_and_one_that_is_drained(folder):
    """Slurm runs a dead node's jobs anew; a drained node ends what it has and begins nothing."""
    write(folder, wait=15)
    watched = launcher(folder, *LAST)
    started = [folder / "work" / f"start_{k}" for k in ("one", "two")]
    wait_for(*started)
    with node_in("down"):
        for file in started:
            file.unlink()
    wait_for(*started)
    with node_in("drain"):
        wait_for(folder / "work" / "one", folder / "work" / "two")
        time.sleep(15)
        assert not (folder / "work" / "z").exists(), "no node takes it"
        assert watched.poll() is None
    assert watched.wait(timeout=120) == 0
    assert (folder / "work" / "z").is_file()


def test_settings_of_slurm_go_where_submitit_has_them():
    given = {"partition": "gpu", "gpus_per_node": 1, "nice": 7, "signal_delay_s": 120}
    assert sorted_out(given) == {
        "slurm_partition": "gpu",
        "gpus_per_node": 1,
        "slurm_signal_delay_s": 120,
        "slurm_additional_parameters": {"nice": 7},
    }
    assert sorted_out({"timeout_min": 5}) == {"timeout_min": 5}


def test_a_cluster_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StageError, match=r"--executor slurm: .*srun.*; is this a node that submits jobs\?"):
        Queue(Workspace(tmp_path), "slurm")


def test_slurm_may_not_answer_for_a_while(monkeypatch):
    answers = [SimpleNamespace(returncode=1, stdout="", stderr="connection refused")] * 2
    answers.append(SimpleNamespace(returncode=0, stdout="7 RUNNING\n", stderr=""))
    monkeypatch.setattr(jobs.subprocess, "run", lambda *args, **kwargs: answers.pop(0))
    monkeypatch.setattr(jobs, "PACE", 0.0)
    assert jobs._squeue() == "7 RUNNING\n"
    answers.append(SimpleNamespace(returncode=1, stdout="", stderr="connection refused\n"))
    monkeypatch.setattr(jobs, "PATIENCE", -1.0)
    with pytest.raises(StageError, match="connection refused; the jobs go on"):
        jobs._squeue()
