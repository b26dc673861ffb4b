"""What is wrong with the settings is told before what is wrong with the data: a misspelt method, above all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.commands import environment

from benchmark import plan
from benchmark.check import method_names
from benchmark.experiment.settings import SettingsError, load
from pgd.methods import METHODS

SAID = "runs.best: no distillation method 'pdg'; did you mean 'pgd'?"


def content(method: str) -> dict:
    """Settings of a data set that is not there, and of backbones that nobody has fetched."""
    options = {"model.backbone.init_cfg": {"type": "Pretrained", "checkpoint": "data/pretrained/gone.pth"}}
    return {
        "datasets": {"coco": {"root": "gone"}},
        "pairs": {
            "gfl": {
                "dataset": "coco",
                "teacher": {"config": "benchmark/configs/mini/gfl_r34.py", "options": options},
                "student": {"config": "benchmark/configs/mini/gfl_r18.py", "options": options},
            }
        },
        "runs": {"student": {"pair": "gfl"}, "best": {"pair": "gfl", "method": method}},
    }


@pytest.fixture
def settled(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(content("pdg")))
    return tmp_path


def test_names_of_methods_are_known_without_them():
    assert method_names() == sorted(METHODS.module_dict)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["check"], ["look", "coco"]])
def test_a_misspelt_method_is_told_first(settled, command):
    """By what runs first in `make repro` and in `dvc repro`."""
    call = [sys.executable, "-m", f"benchmark.{command[0]}", *command[1:]]
    done = subprocess.run(call, cwd=settled, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (1, f"error: params.yaml: {SAID}\n", "")
    assert [path.name for path in settled.iterdir()] == ["params.yaml"]
    Path("params.yaml").write_text(yaml.safe_dump(content("pgd")))
    done = subprocess.run(call, cwd=settled, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_plan_tells_it_before_data_and_backbones(settled):
    with pytest.raises(SettingsError) as caught:
        plan.plan(load("params.yaml"))
    assert str(caught.value) == SAID
    Path("params.yaml").write_text(yaml.safe_dump(content("pgd")))
    with pytest.raises(SettingsError, match=r"run `dvc repro prepare@coco`|pretrained backbone missing"):
        plan.plan(load("params.yaml"))
    assert not Path("work").exists()
