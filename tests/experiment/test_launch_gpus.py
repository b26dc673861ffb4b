"""Which GPUs of this machine each job sees."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from support.launching import experiment_in
from support.worlds import light_content

import benchmark.launch as module
from benchmark.experiment.jobs import gpus_here
from benchmark.experiment.settings import parse
from benchmark.experiment.workspace import ROOT
from benchmark.launch import launch


@pytest.fixture
def folder(tmp_path) -> Path:
    return experiment_in(tmp_path)


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
