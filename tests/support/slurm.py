"""Tests by a real Slurm, where there is one."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def slurm_is_there() -> bool:
    """Whether a node waits for jobs (``tools/slurm_here.sh start``)."""
    if shutil.which("sinfo") is None:
        return False
    told = subprocess.run(["sinfo", "-h", "-t", "idle,mix"], capture_output=True, text=True, check=False)
    return bool(told.stdout.strip())


NEEDS_SLURM = pytest.mark.skipif(not slurm_is_there(), reason="needs a Slurm: sudo bash tools/slurm_here.sh start")
