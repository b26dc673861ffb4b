"""A small pipeline of shell commands in a DVC repository of its own, for tests of the launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmark.experiment.workspace import ROOT

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


def experiment_in(root: Path) -> Path:
    """An experiment below the root of a repository."""
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True, env=ENVIRONMENT)
    here = root / "experiment"
    here.mkdir()
    write(here)
    return here


def write(folder: Path, wait: float = 6) -> None:
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"vars": [{"wait": wait}], "stages": PIPELINE}, sort_keys=False))


def status(folder: Path) -> dict:
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    return json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, env=ENVIRONMENT).stdout)


def launcher(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen:
    """The launcher, called in a folder as a user does."""
    command = [sys.executable, "-m", "benchmark.launch", *arguments]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **options)


def wait_for(*files: Path, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not all(file.is_file() for file in files):
        assert time.monotonic() < until, f"nothing wrote {', '.join(str(file) for file in files if not file.is_file())}"
        time.sleep(0.2)
