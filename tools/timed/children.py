"""Processes that measure beside this one, of the same checkout whatever is installed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmark.experiment.workspace import ROOT


def environment() -> dict[str, str]:
    """Variables with which a process imports from this checkout."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def started(command: Sequence[str], **options: Any) -> subprocess.Popen:
    """A Python process with pipes to stdin and from stdout, the first of a group of its own."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, *command], env=environment(), **pipes | options)


def ended(process: subprocess.Popen) -> None:
    """A process and all of its group are gone; one that has ended by itself may be given, too."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        # there may be words that it never read
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()


def called(command: Sequence[str], text: str = "") -> None:
    """Run a Python process to its end.

    Raises:
        RuntimeError: it failed; with its last words.
    """
    words = [sys.executable, *command]
    done = subprocess.run(words, input=text, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
