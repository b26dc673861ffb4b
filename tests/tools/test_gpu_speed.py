"""The GPU's tools where there is no GPU: a quick run on the CPU, and plain words instead of an error."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from support.detectors import QUIET

from benchmark.experiment.config import ROOT
from tools import gpu_speed, steps

pytestmark = [QUIET, pytest.mark.slow]

VARIANTS = {"student", "teacher", *gpu_speed.METHODS, "pgd_maps"}


def hidden(*command: str) -> subprocess.CompletedProcess:
    """Run a command that sees no GPU."""
    variables = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables)


@pytest.mark.long
def test_figures_of_every_block(tmp_path):
    scale = replace(steps.QUICK, batches=(2,))
    path = gpu_speed.measure(scale, "cpu", 1.0, tmp_path, ("gfl",))
    content = json.loads(path.read_text())
    assert content["complete"]
    assert content["torch"] == torch.__version__
    assert content["driver"] is None
    assert [b["precision"] for b in content["blocks"]] == list(gpu_speed.PRECISIONS)
    for block in content["blocks"]:
        assert "failed" not in block
        assert block["detector"] == "gfl"
        assert block["batch"] == 2
        assert set(block["ms"]) == VARIANTS
        assert all(block["finite"].values())
        assert all(0 < f["least"] <= f["lower"] <= f["median"] <= f["upper"] for f in block["ms"].values())
        assert set(block["ratio"]) == set(gpu_speed.METHODS)
        assert all(math.isfinite(f["median"]) for f in block["ratio"].values())


def test_time_that_is_over_leaves_what_was_done(tmp_path):
    path = gpu_speed.measure(steps.QUICK, "cpu", 0.0, tmp_path, ("fcos",))
    content = json.loads(path.read_text())
    assert not content["complete"]
    assert len(content["blocks"]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name], "nothing half-written"


def test_a_variant_that_fails_is_named_and_the_others_are_timed(tmp_path, monkeypatch):
    def out_of_memory(self) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(gpu_speed.Turns, "teach", out_of_memory)
    path = gpu_speed.measure(steps.QUICK, "cpu", 0.0, tmp_path, ("atss",))
    (block,) = json.loads(path.read_text())["blocks"]
    assert block["failed"] == {"teacher": "CUDA out of memory."}
    assert not block["ratio"]
    assert set(block["ms"]) == VARIANTS - {"teacher"}


def test_memory_that_a_step_needs_itself():
    subject = steps.Subject("pgd", "gfl", steps.QUICK, "cpu")
    own, both = subject.held(teacher=False), subject.held()
    assert both - own == sum(t.numel() * t.element_size() for t in subject.model.teacher.state_dict().values())
    assert own == sum(t.numel() * t.element_size() for t in subject.model.state_dict().values())


def test_a_card_names_its_file():
    assert gpu_speed.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


@pytest.mark.long
@pytest.mark.parametrize(
    "command", [(sys.executable, "-m", "tools.gpu_speed"), ("bash", "tools/gpu_check.sh")], ids=["speed", "check"]
)
def test_without_a_gpu_one_line_and_no_error(command, tmp_path):
    option = ("--out",) if "-m" in command else ()
    done = hidden(*command, *option, str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no CUDA device")
    assert len(done.stdout.splitlines()) == 1
    assert not (tmp_path / "out").exists()
