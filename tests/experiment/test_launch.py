"""Stages side by side, on a small pipeline of shell commands."""

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
from support.launching import ENVIRONMENT, PIPELINE, experiment_in, launcher, status, write

import benchmark.launch as module
from benchmark.experiment.stages import StageError, Stages, last_line
from benchmark.experiment.workspace import ROOT
from benchmark.launch import launch


@pytest.fixture
def folder(tmp_path) -> Path:
    return experiment_in(tmp_path)


@pytest.mark.slow
def test_order_and_needs(folder):
    stages = Stages(folder)
    assert set(stages.needs) == {"first", "side@one", "side@two", "side@bad", "last", "never"}
    assert stages.needs["last"] == {"side@one", "side@two"}
    assert stages.with_needs({"last"}) == {"last", "side@one", "side@two", "first"}
    assert stages.changed("first")


@pytest.mark.long
def test_stages_run_side_by_side_and_a_failure_stops_what_needs_it(folder, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(StageError, match=r"failed: side@bad: told .*; 1 more wait for them"):
        launch(folder, "local", 3, [], {})
    times = {name: float((folder / "work" / name).read_text()) for name in ("one", "two", "start_one", "start_two")}
    assert max(times["start_one"], times["start_two"]) < min(times["one"], times["two"]), "at the same time"
    told = capsys.readouterr().out
    assert "side@bad: failed" in told
    assert "never" not in told, "what only waits for it is counted"
    assert "1 wait for these" in told
    assert {name.split(":")[-1] for name in status(folder)} == {"side@bad", "never"}
    before = (folder / "work" / "one").read_text()
    launch(folder, "local", 3, ["last"], {})
    assert (folder / "work" / "one").read_text() == before, "nothing to do"


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP], ids=["killed", "ctrl-c", "closed"])
def test_a_launcher_finds_its_jobs_again(folder, how):
    write(folder, wait=15)
    first = launcher(folder, "--only", "last", start_new_session=True)
    until = time.monotonic() + 90
    while not all((folder / "work" / f"start_{k}").is_file() for k in ("one", "two")):
        assert time.monotonic() < until
        assert first.poll() is None
        time.sleep(0.2)
    started = {k: (folder / "work" / f"start_{k}").read_text() for k in ("one", "two")}
    # a terminal sends Ctrl-C, and that it is closed, to all processes in front of it
    os.kill(first.pid, how) if how == signal.SIGKILL else os.killpg(first.pid, how)
    first.wait()
    assert launcher(folder, "--only", "last").wait() == 0
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


@pytest.mark.long
def test_another_process_with_the_number_of_a_job_is_no_job(folder):
    """As after a restart of the machine."""
    memory = folder / "work" / "launch" / "jobs.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(json.dumps({"side@one": {"id": str(os.getpid()), "began": "1", "gpus": None}}))
    launch(folder, "local", 2, ["side@one"], {})
    assert (folder / "work" / "one").is_file()


@pytest.mark.slow
def test_what_cannot_be_asked_for(folder):
    with pytest.raises(StageError, match=r"no stage is called like teacher@\*; there are: "):
        launch(folder, "local", 2, ["teacher@*"], {})
    with pytest.raises(StageError, match=r"no stages; run this from the folder of an experiment"):
        Stages(folder.parent)


@pytest.mark.slow
def test_what_nobody_makes_is_told_before_anything_runs(folder):
    (folder / "pinned").write_text("data")
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "pinned"], cwd=folder, check=True, env=ENVIRONMENT)
    stages = {"first": PIPELINE["first"], "later": {"cmd": "touch b", "deps": ["pinned", "work/a"], "outs": ["b"]}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "pinned").unlink()
    with pytest.raises(
        StageError, match=r"^pinned: not there, and no stage makes it; `dvc pull pinned.dvc` brings it$"
    ):
        launch(folder, "local", 2, [], {})
    assert not (folder / "work").exists()
    launch(folder, "local", 2, ["first"], {})
    stages["later"]["deps"] = ["own", "work/a"]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    assert Stages(folder).absent({"later"}) == {"own": "bring it back"}


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


@pytest.mark.long
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


def test_a_training_is_evaluated_before_the_next_begins():
    needs = {"plan": (), "train@a": {"plan"}, "train@b": {"plan"}, "try@a": {"train@a"}, "try@b": {"train@b"}}
    needs["report"] = {"try@b", "try@a"}
    order = ["plan", "train@a", "try@a", "train@b", "try@b", "report"]
    assert module.ends_first(needs, set(needs)) == order
    assert module.ends_first(needs, set(order[:-1])) == order[:-1]
    assert module.ends_first(needs, {"plan", "train@b"}) == ["plan", "train@b"]


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
