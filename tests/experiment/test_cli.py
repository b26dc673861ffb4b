"""Every command answers help and usage errors before it imports what takes seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tools.arguments
from benchmark.experiment.arguments import COMMANDS
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.workspace import ROOT

#: Importing any of them takes seconds on a laptop, or a good part of one.
HEAVY = {"torch", "mmdet", "mmengine", "mmcv", "torchvision", "pandas", "matplotlib", "seaborn", "scipy", "nbconvert"}
#: what can be typed, by package
DOORS = {"benchmark": COMMANDS, "tools": tools.arguments.COMMANDS, "pgd": ["evaluation"]}
#: arguments that are wrong for the command
WRONG = {
    "benchmark.train": ["distil", "pgd"],
    "benchmark.cost": ["--turns", "few"],
    "benchmark.key_regions": ["gfl", "--checkpoint", "a.pth"],
    "benchmark.fetch": ["crowdhuman", "--root", "a", "--mirror", "http://b"],
    "benchmark.plan": ["--price", "2"],
    "benchmark.submit": ["a", "--who", "../b"],
    "benchmark.smoke": ["--slurm", "partition"],
    "benchmark.tune": [],
    "benchmark.convert": ["voc", "--annotations", "a", "--images", "b", "--out", "c", "--split", "1.5"],
    "benchmark.data.pretrain": ["resnet50"],
    "benchmark.verdict": ["--accept", "--against", "a.json"],
    "tools.gpu_speed": ["--detectors", "yolo"],
    "tools.fuzz_metrics": ["--scenes", "many"],
    "pgd.evaluation": ["annotation_val.odgt"],
}


def call(*arguments: str) -> tuple[subprocess.CompletedProcess, set[str]]:
    """``python -m`` in a process of its own; and the heavy packages that it imported."""
    command = [sys.executable, "-X", "importtime", "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    taken = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    done.stderr = "\n".join(line for line in lines if not line.startswith("import time:"))
    return done, HEAVY & taken


@pytest.mark.slow
def test_importtime_shows_what_is_heavy():
    """The probe itself: a module that needs torch is seen to."""
    _, heavy = call("torch.version")
    assert "torch" in heavy


@pytest.mark.slow
@pytest.mark.parametrize("module", [f"{package}.{name}" for package, names in DOORS.items() for name in names])
def test_help(module):
    done, heavy = call(module, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module} ")
    assert not heavy


@pytest.mark.slow
@pytest.mark.parametrize("module", WRONG)
def test_usage_error(module):
    done, heavy = call(module, *WRONG[module])
    assert done.returncode == 2
    assert f"python -m {module}" in done.stderr
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


@pytest.mark.slow
@pytest.mark.parametrize("name", DOORS["tools"])
def test_a_tool_starts_by_itself(name):
    """Tests import what serves mmcv's operators first; mmdet's modules need it in a process of a tool's own, too."""
    done = subprocess.run([sys.executable, "-c", f"import tools.{name}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["benchmark", "tools"])
def test_every_command_is_listed(package):
    """A module that calls ``answer_early`` does so under its own name, and is in the table."""
    named = "" if package == "benchmark" else f', "{package}"'
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        if "\ndef main(" in (text := path.read_text()):
            name = ".".join(path.relative_to(ROOT / package).with_suffix("").parts)
            found[name] = f'answer_early("{name}"{named})' in text
    assert found == dict.fromkeys(DOORS[package], True)


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


@pytest.mark.parametrize("text", ["print('x' * 99999, flush=True)", "print('x' * 99)"])
def test_whoever_reads_may_stop(text):
    """``python -m benchmark.methods | head -1``: no traceback."""
    code = f"import sys; from benchmark.experiment.cli import run_cli; run_cli(lambda: (sys.stdin.read(), {text}))"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as writer:
        writer.stdout.close()
        writer.stdin.close()
        assert writer.stderr.read() == b""
        assert writer.wait() == 1
