"""Stages side by side, on a small pipeline of shell commands in a DVC repository of its own."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from support.slurm import NEEDS_SLURM, node_in
from support.worlds import light_content

import benchmark.launch as module
from benchmark.experiment import jobs
from benchmark.experiment.jobs import Queue, gpus_here, sorted_out
from benchmark.experiment.settings import parse
from benchmark.experiment.stages import StageError, Stages, last_line
from benchmark.experiment.workspace import ROOT, Workspace
from benchmark.launch import launch

PIPELINE = {
    "first": {"cmd": "mkdir -p work && echo first && echo 1 > work/a", "outs": ["work/a"]},
    "side": {
        "matrix": {"k": ["one", "two", "bad"]},
        "cmd": "sleep 1; date +%s.%N > work/start_${item.k}; sleep ${wait}; cat work/a; "
        "echo told; test ${item.k} != bad && date +%s.%N > work/${item.k}",
        "deps": ["work/a"],
        "outs": ["work/${item.k}"],
    },
    "last": {"cmd": "cat work/one work/two > work/z", "deps": ["work/one", "work/two"], "outs": ["work/z"]},
    "never": {"cmd": "cat work/bad > work/n", "deps": ["work/bad"], "outs": ["work/n"]},
}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """An experiment below the root of a repository."""
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True, env=ENVIRONMENT)
    here = tmp_path / "experiment"
    here.mkdir()
    write(here)
    return here


def write(folder: Path, wait: float = 6) -> None:
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"vars": [{"wait": wait}], "stages": PIPELINE}, sort_keys=False))


def status(folder: Path) -> dict:
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    return json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, env=ENVIRONMENT).stdout)


@pytest.mark.slow
def test_order_and_needs(folder):
    stages = Stages(folder)
    assert set(stages.needs) == {"first", "side@one", "side@two", "side@bad", "last", "never"}
    assert stages.needs["last"] == {"side@one", "side@two"}
    assert stages.with_needs({"last"}) == {"last", "side@one", "side@two", "first"}
    assert stages.changed("first")


@pytest.mark.slow
def test_stages_run_side_by_side_and_a_failure_stops_what_needs_it(folder, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(StageError, match=r"failed: side@bad: told .*; 1 more wait for them"):
        launch(folder, "local", 3, [], {})
    times = {name: float((folder / "work" / name).read_text()) for name in ("one", "two", "start_one", "start_two")}
    assert max(times["start_one"], times["start_two"]) < min(times["one"], times["two"]), "at the same time"
    assert "never: blocked" in capsys.readouterr().out
    assert {name.split(":")[-1] for name in status(folder)} == {"side@bad", "never"}
    before = (folder / "work" / "one").read_text()
    launch(folder, "local", 3, ["last"], {})
    assert (folder / "work" / "one").read_text() == before, "nothing to do"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP], ids=["killed", "ctrl-c", "closed"])
def test_a_launcher_finds_its_jobs_again(folder, how):
    write(folder, wait=15)
    command = [sys.executable, "-m", "benchmark.launch", "--only", "last"]
    first = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, start_new_session=True)
    until = time.monotonic() + 90
    while not all((folder / "work" / f"start_{k}").is_file() for k in ("one", "two")):
        assert time.monotonic() < until
        assert first.poll() is None
        time.sleep(0.2)
    started = {k: (folder / "work" / f"start_{k}").read_text() for k in ("one", "two")}
    # a terminal sends Ctrl-C, and that it is closed, to all processes in front of it
    os.kill(first.pid, how) if how == signal.SIGKILL else os.killpg(first.pid, how)
    first.wait()
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True)
    assert {k: (folder / "work" / f"start_{k}").read_text() for k in started} == started, "each ran once"
    assert (folder / "work" / "z").is_file()


@pytest.mark.slow
def test_what_a_killed_dvc_left_half_written_stops_nobody(folder):
    """As when a node dies while DVC writes down which stage reads what."""
    torn = folder.parent / ".dvc" / "tmp" / "rwlock"
    torn.parent.mkdir(exist_ok=True)
    torn.write_text("")
    launch(folder, "local", 2, ["first"], {})
    assert (folder / "work" / "a").is_file()


@pytest.mark.slow
def test_another_process_with_the_number_of_a_job_is_no_job(folder):
    """As after a restart of the machine."""
    memory = folder / "work" / "launch" / "jobs.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(json.dumps({"side@one": {"id": str(os.getpid()), "began": "1", "gpus": None}}))
    launch(folder, "local", 2, ["side@one"], {})
    assert (folder / "work" / "one").is_file()


@pytest.mark.slow
@NEEDS_SLURM
def test_slurm_runs_stages_and_a_cancelled_one_failed(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    launch(folder, "slurm", 2, ["side@one"], {})
    assert (folder / "work" / "one").is_file()
    write(folder, wait=60)
    watched = subprocess.Popen([sys.executable, "-m", "benchmark.launch", "--executor", "slurm"], cwd=folder)
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
    command = [sys.executable, "-m", "benchmark.launch", "--executor", "slurm", "--jobs", "2", "--only", "last"]
    first = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT)
    files = [folder / "work" / f"start_{k}" for k in ("one", "two")]
    wait_for(*files)
    started = [file.read_text() for file in files]
    first.kill()
    first.wait()
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True)
    assert [file.read_text() for file in files] == started, "each ran once"
    assert (folder / "work" / "z").is_file()


def wait_for(*files: Path, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not all(file.is_file() for file in files):
        assert time.monotonic() < until, f"nothing wrote {', '.join(str(file) for file in files if not file.is_file())}"
        time.sleep(0.2)


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
    watched = subprocess.Popen(
        [sys.executable, "-m", "benchmark.launch", "--executor", "slurm", "--slurm", "nice=1", "signal_delay_s=30"],
        cwd=folder, env=ENVIRONMENT,
    )  # fmt: skip
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
    command = [sys.executable, "-m", "benchmark.launch", "--executor", "slurm", "--jobs", "2", "--only", "last"]
    watched = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT)
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


@pytest.mark.slow
def test_what_cannot_be_asked_for(folder):
    with pytest.raises(StageError, match=r"no stage is called like teacher@\*; there are: "):
        launch(folder, "local", 2, ["teacher@*"], {})
    with pytest.raises(StageError, match=r"no stages; run this from the folder of an experiment"):
        Stages(folder.parent)


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("a\n 10%|#\r 20%|##\n", "20%|##"),
        ("error: no such pair\nERROR: failed to reproduce 'x': failed to run\n", "error: no such pair"),
        ("ERROR: failed to reproduce 'x'\nsubmitit ERROR - it raised\n", "ERROR: failed to reproduce 'x'"),
        ("", ""),
    ],
)
def test_last_line(text, last):
    assert last_line(text) == last


@pytest.mark.slow
def test_partial_makes_only_what_is_asked_for(folder):
    """Outputs of an experiment that was made elsewhere are gone: stages that have nothing to do stay as they are."""
    write(folder, wait=0)
    with pytest.raises(StageError):
        launch(folder, "local", 2, [], {})
    before = {path.name: path.read_text() for path in (folder / "work").glob("start_*")}
    shutil.rmtree(folder / "work")
    shutil.rmtree(folder.parent / ".dvc" / "cache")
    (folder / "work").mkdir()
    launch(folder, "local", 2, ["last"], {}, partial=True)
    assert not list((folder / "work").glob("start_*")), "nothing has changed"
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())
    stages["stages"]["more"] = {"cmd": "cat work/one > work/m", "deps": ["work/one"], "outs": ["work/m"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))
    launch(folder, "local", 2, ["last", "more"], {}, partial=True)
    made = {path.name for path in (folder / "work").iterdir()}
    assert {"a", "one", "m", "start_one"} <= made
    assert made.isdisjoint({"two", "z", "start_two"}), "what nobody asked for was not made"
    assert before.keys() >= {"start_one", "start_two"}


@pytest.mark.slow
def test_each_job_of_this_machine_sees_its_gpu(folder, monkeypatch):
    """submitit alone hides them all."""
    monkeypatch.setattr("benchmark.experiment.jobs.gpus_here", lambda: ["2", "5"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    content = yaml.safe_load((folder / "dvc.yaml").read_text())
    content["stages"] = {
        name: {"cmd": f"mkdir -p work && sleep 3 && echo $CUDA_VISIBLE_DEVICES > work/{name}", "outs": [f"work/{name}"]}
        for name in ("a", "b")
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump(content))
    launch(folder, "local", 2, [], {})
    assert {(folder / "work" / name).read_text() for name in ("a", "b")} == {"2\n", "5\n"}


def test_a_training_is_evaluated_before_the_next_begins():
    needs = {"plan": (), "train@a": {"plan"}, "train@b": {"plan"}, "try@a": {"train@a"}, "try@b": {"train@b"}}
    needs["report"] = {"try@b", "try@a"}
    order = ["plan", "train@a", "try@a", "train@b", "try@b", "report"]
    assert module.ends_first(needs, set(needs)) == order
    assert module.ends_first(needs, set(order[:-1])) == order[:-1]
    assert module.ends_first(needs, {"plan", "train@b"}) == ["plan", "train@b"]


def test_the_gpu_with_the_fewest_jobs_is_next():
    names = ["a", "b", "c", "d"]
    stages = SimpleNamespace(needs=dict.fromkeys(names, ()), changed=lambda name: True, partial=False)
    queue = SimpleNamespace(
        gpus=["0", "1"],
        found_again=lambda name: (None, None),
        submit=lambda name, gpus, count: gpus,
        log=lambda job: "",
    )
    queue.at_work = lambda job: True
    run = module.Launch(stages, queue, 3, set(names))
    run.step()
    assert [run.tasks[name].gpus for name in names] == ["0", "1", "0", None]
    queue.gpus = []
    run.start(run.tasks["d"])
    assert run.tasks["d"].gpus is None


def test_gpus_of_jobs_found_again_are_taken():
    stages = SimpleNamespace(needs={"a": (), "b": ()}, changed=lambda name: True, partial=False)
    queue = SimpleNamespace(
        gpus=["0", "1"], submit=lambda name, gpus, count: gpus, log=lambda job: "", at_work=lambda job: True
    )
    queue.found_again = lambda name: ("job", "0") if name == "a" else (None, None)
    run = module.Launch(stages, queue, 2, {"a", "b"})
    run.step()
    assert {name: task.gpus for name, task in run.tasks.items()} == {"a": "0", "b": "1"}


def test_a_training_on_several_gpus_gets_as_many():
    names = ["a", "teacher@big", "b", "c"]
    stages = SimpleNamespace(needs=dict.fromkeys(names, ()), changed=lambda name: True, partial=False)
    queue = SimpleNamespace(
        gpus=["2", "5", "7"],
        found_again=lambda name: (None, None),
        submit=lambda name, gpus, count: gpus,
        log=lambda job: "",
    )
    run = module.Launch(stages, queue, 4, set(names), {"teacher@big": 2})
    run.step()
    assert [run.tasks[name].gpus for name in names] == ["2", "5,7", "2", "5"]


def test_what_trainings_take_stands_in_the_settings():
    content = light_content()
    content["pairs"]["gfl"]["teacher"]["gpus"] = 4
    content["seeds"] = [0, 1]
    found = module.taken(parse(content))
    assert found["teacher@gfl"] == 4
    assert {found[f"distill@pgd-{seed}"] for seed in (0, 1)} == {1}


@pytest.mark.parametrize(("chosen", "expected"), [("", ["0", "1", "2"]), ("1,2", ["1", "2"])])
def test_gpus_of_this_machine(monkeypatch, chosen, expected):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpus_here() == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpus_here() == []


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


def test_the_table_shows_what_runs_first():
    stages = SimpleNamespace(needs={name: () for name in "abcdefghi"}, changed=lambda name: True, partial=False)
    queue = SimpleNamespace(
        gpus=[], executor="local", found_again=lambda name: (None, None), log=lambda job: " 10%|# [01:00<09:00]"
    )
    queue.submit, queue.at_work = (lambda name, gpus, count: name), (lambda job: True)
    run = module.Launch(stages, queue, 2, set("abcdefghi"))
    run.step()
    run.step()
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(run.table())
    told = [line.split() for line in console.export_text().splitlines()]
    assert told[0] == ["0", "of", "9", "stages", "done"]
    assert told[2] == ["a", "running", "0:00", "10%|#", "[01:00<09:00]"]
    assert [line[:2] for line in told[3:5]] == [["b", "running"], ["c", "waiting"]]
    assert told[-1] == ["and", "2", "more", "waiting"]
