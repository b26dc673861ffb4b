"""No room while a training works: one sentence, nothing half, and the same result in the end."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.commands import environment
from support.worlds import World, runs, same

from benchmark import train as stage
from benchmark.data.faults import DataError
from pgd.checkpoint import load_state

FGD = {"method": "fgd", "inherit": "head+neck"}


def command(world: World, name: str, kilobytes: int | None) -> subprocess.CompletedProcess:
    """The training's command; its files may have so many KB, as if there was no room for more."""
    limit = "" if kilobytes is None else f"ulimit -f {kilobytes}; "
    line = f"{limit}exec {sys.executable} -m benchmark.train distill {name} --seed 0"
    return subprocess.run(
        ["bash", "-c", line], cwd=world.folder, env=environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.long
# for checkpoints, and already for what is stored of the teacher
@pytest.mark.parametrize(("name", "run"), [("student", {}), ("fgd", FGD)])
def test_a_training_without_room(taught_world: World, name, run):
    params = taught_world.settle(runs(4, **{name: run}))
    job = taught_world.job(params, name, 0)
    folder, out = taught_world.space.checkpoints(job), taught_world.space.trained(job)
    refused = command(taught_world, name, 100)
    assert refused.returncode == 1
    # a progress bar may stand before and behind it
    assert "error: " in refused.stderr
    assert "File too large; make room and run the same command again, what was written before is kept" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(folder.glob("*.pth*")) == []
    assert not (out / "weights.pth").exists()
    assert command(taught_world, name, None).returncode == 0
    weights = load_state(out / "weights.pth")
    assert same(weights, load_state(taught_world.train(params, name) / "weights.pth"))


@pytest.mark.parametrize(
    "words",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit.",
        "unable to open shared memory object </torch_7_1_0> in read-write mode: No such file or directory (2)",
    ],
)
def test_no_shared_memory(tiny_world: World, monkeypatch, words):
    def fails(cfg, label):
        raise RuntimeError(words)

    monkeypatch.setattr(stage, "run", fails)
    params = tiny_world.settle(runs(4, student={}))
    with pytest.raises(DataError, match=r"student-0: .*--shm-size=8g.*num_workers: 0"):
        tiny_world.train(params, "student")
