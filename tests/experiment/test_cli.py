"""Every command answers help and usage errors before it imports what takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import benchmark
from benchmark.experiment.arguments import COMMANDS
from benchmark.experiment.cli import command_parser, run_cli

#: Importing any of them takes seconds on a laptop, or a good part of one.
HEAVY = {"torch", "mmdet", "mmengine", "mmcv", "torchvision", "pandas", "matplotlib", "seaborn", "scipy", "nbconvert"}
#: arguments that are wrong for the command
WRONG = {
    "train": ["distil", "pgd"],
    "cost": ["--turns", "few"],
    "key_regions": ["gfl", "--checkpoint", "a.pth"],
    "fetch": ["crowdhuman", "--root", "a", "--mirror", "http://b"],
    "plan": ["--price", "2"],
    "submit": ["a", "--who", "../b"],
    "tune": [],
    "convert": ["voc", "--annotations", "a", "--images", "b", "--out", "c", "--split", "1.5"],
    "data.pretrain": ["resnet50"],
    "verdict": ["--accept", "--against", "a.json"],
}


def call(*arguments: str) -> tuple[subprocess.CompletedProcess, set[str]]:
    """``python -m`` in a process of its own; and the heavy packages that it imported."""
    command = [sys.executable, "-X", "importtime", "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    taken = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    done.stderr = "\n".join(line for line in lines if not line.startswith("import time:"))
    return done, HEAVY & taken


def test_importtime_shows_what_is_heavy():
    """The probe itself: a module that needs torch is seen to."""
    _, heavy = call("torch.version")
    assert "torch" in heavy


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    done, heavy = call(f"benchmark.{command}", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m benchmark.{command} ")
    assert not heavy


@pytest.mark.parametrize("command", WRONG)
def test_usage_error(command):
    done, heavy = call(f"benchmark.{command}", *WRONG[command])
    assert done.returncode == 2
    assert f"python -m benchmark.{command}" in done.stderr
    assert "error: " in done.stderr.splitlines()[-1]
    assert not heavy


def test_version():
    done, heavy = call("benchmark.train", "--version")
    assert done.stdout.startswith("pgd ")
    assert not heavy


def test_overview():
    """``python -m benchmark`` has a line for each command."""
    done, heavy = call("benchmark")
    assert done.returncode == 0, done.stderr
    listed = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [words[0] for words in listed if words[0] in COMMANDS] == list(COMMANDS)
    assert all(len(words) > 1 for words in listed)
    assert not heavy


def test_every_command_is_listed():
    """A module that calls ``answer_early`` does so under its own name, and is in the table."""
    root = Path(benchmark.__file__).parent
    found = {}
    for path in root.rglob("*.py"):
        if "\ndef main(" in (text := path.read_text()):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name] = f'answer_early("{name}")' in text
    assert found == dict.fromkeys(COMMANDS, True)


def test_pretrain_offers_its_backbones(capsys):
    from benchmark.data.pretrain import BACKBONES

    for name in BACKBONES:
        assert command_parser("data.pretrain").parse_args([name]).names == [name]
    with pytest.raises(SystemExit):
        command_parser("data.pretrain").parse_args(["--help"])
    assert "{" + ",".join(sorted(BACKBONES)) + "}" in capsys.readouterr().out


def test_expected_error_is_one_line(capsys):
    def main() -> None:
        raise ValueError("the file is not there; make it")

    with pytest.raises(SystemExit) as stop:
        run_cli(main, ValueError)
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: the file is not there; make it\n"
